"""Arguments of the user's class that stand in the checkpoint, and what else is read of a training's file."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import pytest

from tests.fixtures.checkpoint_files import DIGITS
from tests.fixtures.lazy import torch
from toolchain.checkpoint import load
from toolchain.checkpoint.inspection import inspect_file
from toolchain.checkpoint.source import build_from, parse_source
from toolchain.core.errors import CheckpointError

NET = """
from dataclasses import dataclass
from torch import nn

@dataclass
class Settings:
    width: int = 4
    classes: int = 10

class Net(nn.Module):
    def __init__(self, classes, width=4, seed=0, **more):
        super().__init__()
        self.seed, self.more = seed, more
        self.conv, self.head = nn.Conv2d(1, width, 5, 4), nn.Linear(width * 36, classes)

    def forward(self, image):
        return self.head(self.conv(image).relu().flatten(1))

class Ready(Net):
    def __init__(self, config: Settings):
        super().__init__(config.classes, config.width)

class Mapped(Net):
    def __init__(self, cfg):
        super().__init__(cfg["net"]["classes"], cfg.net.width)
"""
FITTING = {"classes": 10, "width": 8}


@pytest.fixture
def state(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "net.py").write_text(NET)
    return build_from(parse_source(f"{tmp_path}/net.py:Net(classes=10, width=8)")).state_dict()


def read(folder: Path, content: object, model: str = "Net", classes: tuple[str, ...] = DIGITS) -> Any:
    torch.save(content, folder / "theirs.pt")
    return load(str(folder / "theirs.pt"), model=f"{folder}/net.py:{model}", classes=classes).model


@pytest.mark.parametrize(
    ("facts", "model", "said"),
    [
        ({"config": FITTING | {"lr": 0.1}}, "Net", "arguments of Net: classes=10, width=8 from 'config' in the file"),
        ({"hparams": {"classes": 10}, "cfg": {"net": {"width": 8}}}, "Net", "classes=10, width=8 from 'hparams'"),
        ({"config": FITTING}, "Net(10)", "arguments of Net: width=8 from 'config' in the file"),
        ({"config": FITTING | {"classes": 47}}, "Net(classes=10)", "arguments of Net: width=8 from 'config'"),
        (FITTING | {"epoch": 3}, "Net", "arguments of Net: classes=10, width=8 from the top of the file"),
        ({"args": Namespace(**FITTING, out=PosixPath("runs"))}, "Net", "classes=10, width=8 from 'args' in the file"),
        ({"kwargs": FITTING | {"depth": 3}}, "Net", "classes=10, width=8, depth=3 from 'kwargs' in the file"),
        ({"model_args": FITTING | {"depth": 3}}, "Ready", "arguments of Ready: config from 'model_args' in the file"),
        ({"cfg": {"net": FITTING}}, "Mapped", "arguments of Mapped: cfg from 'cfg' in the file"),
        ({"config": FITTING | {"width": 99}}, "Net(10, 8, seed=3)", None),
    ],
)
def test_arguments_are_taken_from_the_file_and_said(
    facts: dict[str, Any], model: str, said: str | None, state: dict[str, Any], tmp_path: Path
) -> None:
    read_model = read(tmp_path, {"state_dict": state, **facts}, model)
    notes = "; ".join(read_model.history)
    assert said in notes if said else "arguments" not in notes
    assert read_model.module.conv.out_channels == 8
    inspected = inspect_file(str(tmp_path / "theirs.pt"), model=f"{tmp_path}/net.py:{model}")
    assert inspected.notes[: len(read_model.history)] == read_model.history


def test_arguments_with_which_the_weights_do_not_fit_are_left_and_that_is_said(
    state: dict[str, Any], tmp_path: Path
) -> None:
    model = read(tmp_path, {"state_dict": state, "config": {"classes": 47, "width": 8}}, "Net(10)")
    assert "width=8" in model.history[-1]
    narrow = {"conv.weight": state["conv.weight"][:4], "conv.bias": state["conv.bias"][:4]}
    narrow |= {"head.weight": state["head.weight"][:, : 4 * 36], "head.bias": state["head.bias"]}
    model = read(tmp_path, {"state_dict": narrow, "config": {"width": 8}}, "Net(10)")
    assert model.history == ("the weights do not fit Net with width=8 from 'config' in the file, which are not taken",)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"config": {"classes": 12, "width": 8}}, r"build it with 10: .*\(with classes=12, width=8 from 'config' in"),
        ({"config": {"classes": 10, "width": 10**12}}, "width=1000000000000 from 'config' is larger than its 3,098"),
        ({"config": {"classes": 200_000, "width": 100_000}}, "asks for 720,002,800,000 parameters"),
        ({"config": {"classes": "many"}}, r"cannot be built \(TypeError"),
        ({"config": {"lr": 0.1}}, r'net.py:Net\(classes=10\)"'),
    ],
)
def test_arguments_that_cannot_be_meant_are_one_line(
    facts: dict[str, Any], message: str, state: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        read(tmp_path, {"state_dict": state, **facts})
    assert "\n" not in str(caught.value)


def test_safetensors_hold_their_configuration_as_json(state: dict[str, Any], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "theirs.safetensors"
    save_file(state, path, metadata={"config": '{"classes": 10, "width": 8}'})
    model = load(str(path), model=f"{tmp_path}/net.py:Net", classes=DIGITS).model
    assert model.history == ("arguments of Net: classes=10, width=8 from 'config' in the file",)


@pytest.mark.parametrize("number", [np.float64(0.9), np.float32(0.5), np.int64(-3), np.bool_(True), np.float16(2)])
def test_numbers_of_numpy_beside_the_weights_need_no_trust(number: Any, state: dict[str, Any], tmp_path: Path) -> None:
    read(tmp_path, {"state_dict": state, "best": number}, "Net(10, 8)")
    assert inspect_file(str(tmp_path / "theirs.pt")).metadata["best"] == pytest.approx(float(number), rel=1e-6)


def test_other_objects_of_numpy_are_code_as_before(state: dict[str, Any], tmp_path: Path) -> None:
    for stranger in (np.zeros(3), np.dtype("O"), np.datetime64("2020-01-01")):
        with pytest.raises(CheckpointError, match=r"--trust-pickle|damaged"):
            read(tmp_path, {"state_dict": state, "best": stranger}, "Net(10, 8)")


@pytest.mark.parametrize(
    "names",
    [
        {"class_names": list(DIGITS[::-1])},
        {"config": {"idx_to_class": {9 - number: str(number) for number in range(10)}}},
        {"class_to_idx": {str(number): 9 - number for number in range(10)}},
    ],
)
def test_names_of_classes_say_what_the_columns_stand_for(
    names: dict[str, Any], state: dict[str, Any], tmp_path: Path
) -> None:
    content = {"state_dict": state, **names}
    assert read(tmp_path, content, "Net(10, 8)", ()).classes == DIGITS[::-1]
    model = read(tmp_path, content, "Net(10, 8)")
    assert model.classes == DIGITS[::-1]
    assert "its columns are in its own order, not the data's: 9876543210" in model.history


def test_names_that_are_not_those_of_the_data_say_nothing_of_its_order(state: dict[str, Any], tmp_path: Path) -> None:
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    assert read(tmp_path, {"state_dict": state, "class_names": words}, "Net(10, 8)").classes == DIGITS

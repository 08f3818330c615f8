"""Keys that another program left beside the weights: its mean and std are tried and named, and none is a dead end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from calibration.dataset import Dataset
from targets.preprocess import Preprocess
from tests.conftest import Finished
from tests.fixtures.checkpoint_files import DIGITS, graph
from tests.fixtures.lazy import nn, torch
from toolchain.checkpoint import CheckpointRequest, load, settle
from toolchain.checkpoint.metadata import scaling_in
from toolchain.core.errors import CheckpointError

FOREIGN = {"mean": (0.2, 0.2, 0.2), "std": (0.4,)}
TRAINED = Preprocess("transpose", mean=0.2, std=0.4)
GIVEN = Preprocess("rot90", mean=0.5, std=0.5)
SOURCE = """
from torch import nn

def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 48), nn.ReLU(), nn.Linear(48, 10))
"""


@pytest.fixture(scope="module")
def weights(digits: Dataset) -> dict[str, Any]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 48), nn.ReLU(), nn.Linear(48, 10))
    images, labels = torch.from_numpy(TRAINED.apply(digits.images)), torch.from_numpy(digits.labels)
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(80):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()
    return net.state_dict()


@pytest.fixture
def source(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(SOURCE)
    return f"{tmp_path / 'net.py'}:make"


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param({"preprocess": FOREIGN}, id="row19-a preprocess of two tuples"),
        pytest.param({"preprocess": {"mean": 0.2, "std": 0.4}}, id="row19-a preprocess that says no turn"),
        pytest.param({"preprocess": {"resize": 28, "mean": [0.2], "std": [0.4]}}, id="row19-unknown keys"),
        pytest.param({"mean": 0.2, "std": 0.4}, id="row19-beside the weights"),
        pytest.param({"config": {"data": {"image_mean": [0.2], "image_std": [0.4]}}}, id="row19-in the settings"),
        pytest.param({"normalize": [[0.2], [0.4]]}, id="row19-a pair"),
        pytest.param({"mean": 51.0, "std": 102.0}, id="row19-of pixels to 255"),
        pytest.param({"transform": "Compose(ToTensor() Normalize(mean=(0.2,), std=(0.4,)))"}, id="row19-printed"),
    ],
)
def test_a_foreign_mean_and_std_are_tried_and_named_and_options_win(
    stored: dict[str, Any], weights: dict[str, Any], source: str, digits: Dataset, tmp_path: Path
) -> None:
    path = tmp_path / "net.pt"
    torch.save({"state_dict": weights, **stored}, path)
    settled = settle(str(path), CheckpointRequest(model=source), digits)
    assert settled.model.preprocess == TRAINED
    assert settled.finding is not None
    assert settled.finding.sentence().count("mean 0.2 std 0.4, as the checkpoint says") == 1
    given = settle(str(path), CheckpointRequest(model=source, preprocess=GIVEN), digits)
    assert (given.model.preprocess, given.finding) == (GIVEN, None)
    with pytest.raises(CheckpointError, match=r"beside mean 0.2 and std 0.4; .*--mean 0.2 --std 0.4"):
        settle(str(path), CheckpointRequest(model=source, classes=DIGITS), None)


def test_row19_a_stored_mean_and_std_that_reads_worse_is_not_taken_and_named(
    weights: dict[str, Any], source: str, digits: Dataset, tmp_path: Path
) -> None:
    torch.save({"state_dict": weights, "mean": 0.95, "std": 0.02}, tmp_path / "net.pt")
    finding = settle(str(tmp_path / "net.pt"), CheckpointRequest(model=source), digits).finding
    assert finding is not None
    assert (finding.winner.orientation, finding.winner.mean == 0.95) == ("transpose", False)
    assert "the checkpoint says mean 0.95 std 0.02, which fits worse" in finding.sentence()


@pytest.mark.parametrize(
    "value",
    [
        *(7, "imagenet", None, [], [1, 2], {}, {"orientation": 3}, {"mean": "grey", "std": None}, {"std": 0.3}),
        *({"orientation": "sideways"}, {"scale": 255, "mean": 0.1}, {"label_offset": "one"}, {"format": "NHWC"}),
        {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    ],
    ids=lambda value: f"row19-{value}",
)
@pytest.mark.parametrize("key", ["preprocess", "transform", "normalize", "mean", "std", "label_offset", "orientation"])
def test_no_foreign_value_is_a_dead_end(
    key: str, value: object, weights: dict[str, Any], source: str, tmp_path: Path
) -> None:
    torch.save({"state_dict": weights, key: value, "format": "v2", "options": 3}, tmp_path / "net.pt")
    model = load(str(tmp_path / "net.pt"), model=source, classes=DIGITS, preprocess=GIVEN).model
    assert model.preprocess == GIVEN


def test_row19_metadata_of_other_tools_takes_the_same_way(weights: dict[str, Any], source: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    facts = {"glyphpress": json.dumps({"preprocess": {"mean": [0.2], "std": [0.4]}})}
    for name, metadata in (("ours", facts), ("theirs", {"format": "pt", "mean": "0.2", "std": "[0.4]"})):
        path = tmp_path / f"{name}.safetensors"
        save_file(weights, path, metadata=metadata)
        loaded = load(str(path), model=source, classes=DIGITS)
        assert (loaded.preprocess_known, loaded.scaling) == (False, Preprocess(mean=0.2, std=0.4))
        assert load(str(path), model=source, classes=DIGITS, preprocess=GIVEN).model.preprocess == GIVEN
        proto = graph()
        for key, value in metadata.items():
            proto.metadata_props.add(key=key, value=value)
        onnx.save(proto, tmp_path / f"{name}.onnx")
        loaded = load(str(tmp_path / f"{name}.onnx"), classes=DIGITS)
        assert (loaded.preprocess_known, loaded.scaling) == (False, Preprocess(mean=0.2, std=0.4))


def test_row19_other_class_names_give_way_to_the_option_and_the_message_says_so(
    weights: dict[str, Any], source: str, digits: Dataset, tmp_path: Path
) -> None:
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    torch.save({"state_dict": weights, "classes": names}, tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match=r"class 0 is 'zero' .* --classes 0-9 says what its columns stand for"):
        settle(str(tmp_path / "net.pt"), CheckpointRequest(model=source), digits)
    settled = settle(str(tmp_path / "net.pt"), CheckpointRequest(model=source, classes=DIGITS), digits)
    assert settled.model.classes == DIGITS
    # The same names in another order are the file's to say: columns would be read as the wrong classes.
    torch.save({"state_dict": weights, "classes": list("1023456789")}, tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match="class 0 is '1' in the checkpoint"):
        settle(str(tmp_path / "net.pt"), CheckpointRequest(model=source, classes=DIGITS), digits)


def test_row19_statistics_of_whole_images_and_broken_numbers_are_no_scaling() -> None:
    for mean, std in ((np.zeros(784), np.ones(784)), (0.1, 0), (float("nan"), 1), (True, 1), (0.1, -1), ([], [])):
        assert scaling_in({"mean": mean, "std": std}) is None


@pytest.mark.parametrize(
    ("stored", "note"),
    [
        pytest.param({"mean": 0.1307}, "mean [0.1307] has no std beside it", id="row19-a mean alone"),
        pytest.param({"config": {"image_std": [0.3]}}, "std [0.3] has no mean beside it", id="row19-a std alone"),
        pytest.param(
            {"preprocess": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}},
            "mean [0.485, 0.456, 0.406] and std [0.229, 0.224, 0.225] are not of one channel",
            id="row19-unlike channels",
        ),
    ],
)
def test_scaling_that_cannot_be_taken_is_named(
    stored: dict[str, Any], note: str, weights: dict[str, Any], source: str, tmp_path: Path
) -> None:
    torch.save({"state_dict": weights, **stored}, tmp_path / "net.pt")
    history = load(str(tmp_path / "net.pt"), model=source, classes=DIGITS).model.history
    assert [line for line in history if line.startswith(f"the file's {note}")]
    given = load(str(tmp_path / "net.pt"), model=source, classes=DIGITS, preprocess=GIVEN).model.history
    assert not [line for line in given if "the file's" in line]


def test_row19_inspect_does_not_call_another_programs_keys_ours(
    weights: dict[str, Any], checkpoint: Path, tmp_path: Path, glyphpress: Callable[..., Finished]
) -> None:
    torch.save({"state_dict": weights, "epoch": 7, "classes": list("0123456789")}, tmp_path / "net.pt")
    output = glyphpress("inspect", tmp_path / "net.pt").out
    assert "stored epoch" in output
    assert "stored classes" in output
    assert "our " not in output
    ours = glyphpress("inspect", checkpoint).out
    assert "our classes" in ours
    assert "stored " not in ours

"""Every torch form in which a trained model comes, read as the same model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from targets.preprocess import Preprocess
from tests.toolchain.checkpoint_files import DIGITS, net_file
from toolchain import models
from toolchain.checkpoint import forward, load
from toolchain.checkpoint.source import build_from, parse_source
from toolchain.checkpoint.state import without_prefixes
from toolchain.errors import CheckpointError

IMAGES = np.random.default_rng(0).random((5, 1, 28, 28), dtype=np.float32)


@pytest.fixture
def source(tmp_path: Path) -> str:
    return f"{net_file(tmp_path)}:Net"


@pytest.fixture
def net(source: str) -> Any:
    torch.manual_seed(3)
    return build_from(parse_source(source)).eval()


def expected(net: Any) -> np.ndarray:
    with torch.no_grad():
        return net(torch.from_numpy(IMAGES)).numpy()


def prefixed(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {prefix + key: value for key, value in state.items()}


WRAPPINGS = {
    "alone": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "model_state_dict": lambda state: {"model_state_dict": state, "optimizer_state_dict": {"state": {}, "lr": 0.1}},
    "model": lambda state: {"model": state, "optimizer": {"param_groups": [{"lr": 0.1}]}},
    "DataParallel": lambda state: prefixed(state, "module."),
    "compiled": lambda state: prefixed(state, "_orig_mod."),
    "Lightning": lambda state: {"state_dict": prefixed(state, "model."), "pytorch-lightning_version": "2"},
    "compiled in DataParallel": lambda state: prefixed(state, "module._orig_mod."),
    "before torch 0.4.1": lambda state: {k: v for k, v in state.items() if "num_batches" not in k},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_weights_are_found_however_they_were_saved(wrapping: str, net: Any, source: str, tmp_path: Path) -> None:
    torch.save(WRAPPINGS[wrapping](net.state_dict()), tmp_path / "net.ckpt")
    loaded = load(str(tmp_path / "net.ckpt"), model=source, classes=DIGITS)
    np.testing.assert_array_equal(forward(loaded.model)(IMAGES), expected(net))
    assert (loaded.preprocess_known, loaded.width, loaded.model.name) == (False, 10, "net")
    assert not loaded.model.torch_module("test").training


def test_half_precision_weights_become_float32(net: Any, source: str, tmp_path: Path) -> None:
    torch.save({k: v.half() for k, v in net.state_dict().items()}, tmp_path / "net.pth")
    model = load(str(tmp_path / "net.pth"), model=source, classes=DIGITS).model
    np.testing.assert_allclose(forward(model)(IMAGES), expected(net), atol=1e-2)


@pytest.mark.parametrize("words", ["(47)", "(classes=47)", "(47, extra=True)"])
def test_the_arguments_of_model_are_passed(words: str, source: str, tmp_path: Path) -> None:
    built = build_from(parse_source(source + words))
    assert built.head.out_features == 47


def test_a_class_is_found_in_an_importable_module_and_a_function_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net_file(tmp_path).rename(tmp_path / "a_users_module.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert type(build_from(parse_source("a_users_module:Net"))).__name__ == "Net"
    assert build_from(parse_source("a_users_module:make(12)")).head.out_features == 12


def test_a_users_file_can_import_its_neighbour(tmp_path: Path) -> None:
    net_file(tmp_path).rename(tmp_path / "layers_of_mine.py")
    (tmp_path / "top.py").write_text("from layers_of_mine import Net\n")
    assert type(build_from(parse_source(f"{tmp_path}/top.py:Net"))).__name__ == "Net"


@pytest.mark.parametrize("dynamic", [True, False], ids=["dynamic batch", "fixed batch"])
def test_a_torch_export_program_comes_back_as_layers(dynamic: bool, net: Any, tmp_path: Path) -> None:
    axes = ({0: torch.export.Dim("batch")},) if dynamic else None
    program = torch.export.export(net, (torch.zeros(2 if dynamic else 1, 1, 28, 28),), dynamic_shapes=axes)
    torch.export.save(program, tmp_path / "net.pt2")
    model = load(str(tmp_path / "net.pt2"), classes=DIGITS).model
    np.testing.assert_allclose(forward(model)(IMAGES), expected(net), atol=1e-4)
    module = model.torch_module("pruning")
    assert isinstance(module.get_submodule("conv"), torch.nn.Conv2d), "layers keep the names they were trained with"
    assert isinstance(module.get_submodule("head"), torch.nn.Linear)


def test_torchscript_comes_back_as_layers(net: Any, tmp_path: Path) -> None:
    torch.jit.trace(net, torch.zeros(2, 1, 28, 28)).save(str(tmp_path / "net.pt"))
    model = load(str(tmp_path / "net.pt"), classes=DIGITS).model
    np.testing.assert_allclose(forward(model)(IMAGES), expected(net), atol=1e-4)
    assert any(isinstance(part, torch.nn.Linear) for part in model.torch_module("pruning").modules())


def test_torchscript_with_control_flow_runs_as_it_is(tmp_path: Path) -> None:
    class Loop(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(784, 10)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            logits = self.head(image.flatten(1))
            while bool(logits.abs().max() > 0.5):
                logits = logits / 2
            return logits

    script = torch.jit.script(Loop().eval())
    script.save(str(tmp_path / "loop.pt"))
    model = load(str(tmp_path / "loop.pt"), classes=DIGITS).model
    bright = IMAGES * 40
    np.testing.assert_allclose(forward(model)(bright), script(torch.from_numpy(bright)).detach().numpy(), atol=1e-5)
    assert "run as it is" in model.history[0]


def test_safetensors_says_its_classes_and_preprocess_itself(tmp_path: Path) -> None:
    torch.manual_seed(1)
    module = models.build("cnn-small", 10).eval()
    preprocess = Preprocess("transpose", mean=0.5, std=0.5)
    facts = {"model": "cnn-small", "classes": list(DIGITS), "preprocess": preprocess.to_dict()}
    save_file(module.state_dict(), tmp_path / "m.safetensors", metadata={"glyphpress": json.dumps(facts)})
    loaded = load(str(tmp_path / "m.safetensors"))
    assert (loaded.model.preprocess, loaded.model.classes, loaded.preprocess_known) == (preprocess, DIGITS, True)
    np.testing.assert_array_equal(forward(loaded.model)(IMAGES), expected(module))


def test_our_own_training_checkpoint_needs_no_model(tmp_path: Path) -> None:
    module = models.build("cnn-small", 10).eval()
    preprocess = Preprocess(invert=True)
    facts = {"schema": "x", "model": "cnn-small", "classes": list(DIGITS), "preprocess": preprocess.to_dict()}
    torch.save(facts | {"state_dict": module.state_dict(), "epoch": 3}, tmp_path / "model.pt")
    loaded = load(str(tmp_path / "model.pt"), classes=DIGITS)
    assert (loaded.model.preprocess, loaded.preprocess_known) == (preprocess, True)
    np.testing.assert_array_equal(forward(loaded.model)(IMAGES), expected(module))


def test_options_win_over_what_is_stored(tmp_path: Path) -> None:
    module = models.build("cnn-small", 10)
    facts = {"model": "cnn-small", "classes": list(DIGITS), "preprocess": Preprocess().to_dict()}
    torch.save(facts | {"state_dict": module.state_dict()}, tmp_path / "model.pt")
    given = Preprocess("rot90")
    assert load(str(tmp_path / "model.pt"), preprocess=given).model.preprocess == given


@pytest.mark.parametrize("kind", ["Pair", "Named"])
def test_of_several_outputs_the_one_of_the_right_width_is_taken_and_said(kind: str, net: Any, tmp_path: Path) -> None:
    torch.save(net.state_dict(), tmp_path / "net.pt")
    model = load(str(tmp_path / "net.pt"), model=f"{tmp_path}/net.py:{kind}", classes=DIGITS).model
    np.testing.assert_array_equal(forward(model)(IMAGES), expected(net))
    assert "taken as the logits" in model.history[-1]


def test_a_model_with_a_blank_first_column_is_taken_for_one_of_labels_from_1(net: Any, tmp_path: Path) -> None:
    torch.save(net.state_dict(), tmp_path / "net.pt")
    loaded = load(str(tmp_path / "net.pt"), model=f"{tmp_path}/net.py:Net", classes=tuple("123456789"))
    assert loaded.width == 10


def test_a_whole_pickled_model_is_read_only_when_trusted(net: Any, source: str, tmp_path: Path) -> None:
    torch.save(net, tmp_path / "whole.pt")
    model = load(str(tmp_path / "whole.pt"), model=source, classes=DIGITS, trust_pickle=True).model
    np.testing.assert_array_equal(forward(model)(IMAGES), expected(net))


def test_a_pickled_class_of_the_training_script_is_found_with_model(
    net: Any, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type(net)
    with monkeypatch.context() as script:
        script.setattr(kind, "__module__", "__main__")
        script.setattr("__main__.Net", kind, raising=False)
        torch.save(net, tmp_path / "whole.pt")
    with pytest.raises(CheckpointError, match="class is not here"):
        load(str(tmp_path / "whole.pt"), classes=DIGITS, trust_pickle=True)
    model = load(str(tmp_path / "whole.pt"), model=source, classes=DIGITS, trust_pickle=True).model
    np.testing.assert_array_equal(forward(model)(IMAGES), expected(net))


@given(st.lists(st.sampled_from(["module.", "_orig_mod.", "model."]), max_size=4))
def test_any_stack_of_prefixes_comes_off(prefixes: list[str]) -> None:
    names = ["conv.weight", "model.weight", "head.bias"]
    state = {"".join(prefixes) + name: torch.zeros(1) for name in names}
    found, _ = without_prefixes(state, names)
    assert set(found) == set(names)

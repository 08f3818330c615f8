"""Every torch form in which a trained model comes, read as the same model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from targets.preprocess import Preprocess
from tests.fixtures.checkpoint_files import DIGITS, net_file
from tests.fixtures.lazy import torch
from toolchain import models
from toolchain.checkpoint import forward, load
from toolchain.checkpoint.source import build_from, parse_source
from toolchain.checkpoint.state import fit_state
from toolchain.core.errors import CheckpointError, UsageProblem

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
    "row18-AveragedModel": lambda state: {"n_averaged": torch.tensor(3), **prefixed(state, "module.")},
    "row18-Lightning with metrics": lambda state: {
        "state_dict": {**prefixed(state, "net."), "val_acc.tp": torch.zeros(10), "loss.weight": torch.ones(10)},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}}],
    },
    "row18-metrics beside the layers": lambda state: {**state, "val_acc.tp": torch.zeros(10)},
    "row18-a key of their own": lambda state: {"weights_of_mine": {"best": state}, "class_names": list(DIGITS)},
    "row18-a tuple": lambda state: (state, {"lr": 0.1}),
    "row18-DataParallel inside": lambda state: {k.replace(".", ".module.", 1): v for k, v in state.items()},
    "row18-checkpointed": lambda state: {k.replace(".", "._checkpoint_wrapped_module."): v for k, v in state.items()},
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


@pytest.mark.parametrize(
    "both",
    [
        lambda raw, ema: {"model_ema": ema, "model": raw},
        lambda raw, ema: {"state_dict_ema": ema, "state_dict": raw, "optimizer": {}},
        lambda raw, ema: {"state_dict": {**prefixed(ema, "ema_model.module."), **prefixed(raw, "net.")}},
    ],
    ids=["row4-timm", "row4-of the same names", "row4-in one dict"],
)
def test_raw_weights_are_taken_and_the_averaged_ones_are_named(
    both: Any, net: Any, source: str, tmp_path: Path, glyphpress: Any
) -> None:
    path, averaged = tmp_path / "both.pt", {k: v * 2 for k, v in net.state_dict().items()}
    torch.save(both(net.state_dict(), averaged), path)
    model = load(str(path), model=source, classes=DIGITS).model
    np.testing.assert_array_equal(forward(model)(IMAGES), expected(net))
    (note,) = model.history
    key = note.split("--weights ")[1].split()[0]
    chosen = load(str(path), model=source, classes=DIGITS, weights=key).model
    net.load_state_dict(averaged)
    np.testing.assert_array_equal(forward(chosen)(IMAGES), expected(net))
    with pytest.raises(UsageProblem, match=f"no weights under 'other'; it has them under .*{key}"):
        load(str(path), model=source, classes=DIGITS, weights="other")
    assert f"--weights {key}" in glyphpress("inspect", path, "--model", source).out
    assert f"'{key}'" in glyphpress("inspect", path, "--model", source, "--weights", key).out


def test_row4_a_whole_program_has_no_other_weights(net: Any, tmp_path: Path) -> None:
    torch.jit.trace(net, torch.zeros(2, 1, 28, 28)).save(str(tmp_path / "net.pt"))
    with pytest.raises(UsageProblem, match="leave --weights out"):
        load(str(tmp_path / "net.pt"), classes=DIGITS, weights="model_ema")


def test_row16_lazy_layers_take_the_shapes_of_the_file(source: str, net: Any, tmp_path: Path) -> None:
    lazy = tmp_path / "lazy.py"
    lazy.write_text(
        Path(source.rpartition(":")[0])
        .read_text()
        .replace("nn.Linear(8 * 13 * 13, classes)", "nn.LazyLinear(classes)")
        .replace("nn.BatchNorm2d(8)", "nn.LazyBatchNorm2d()")
    )
    torch.save(net.state_dict(), tmp_path / "net.pt")
    model = load(str(tmp_path / "net.pt"), model=f"{lazy}:Net", classes=DIGITS).model
    np.testing.assert_array_equal(forward(model)(IMAGES), expected(net))
    assert type(model.torch_module("test").head) is torch.nn.Linear


def test_row16_lazy_layers_that_never_ran_are_named(source: str, tmp_path: Path) -> None:
    torch.save({"head": torch.nn.LazyLinear(10).state_dict()}, tmp_path / "never.pt")
    for trust in (False, True):
        with pytest.raises(CheckpointError, match="lazy layers have no weights yet"):
            load(str(tmp_path / "never.pt"), model=source, classes=DIGITS, trust_pickle=trust)


def test_row18_old_weight_norm_is_read_by_the_new(tmp_path: Path) -> None:
    import warnings

    (tmp_path / "normed.py").write_text(
        "from torch import nn\n"
        "def new(): return nn.Sequential(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(784, 10)))\n"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        old = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.utils.weight_norm(torch.nn.Linear(784, 10)))
    torch.save({"state_dict": prefixed(old.state_dict(), "net.")}, tmp_path / "old.pt")
    model = load(str(tmp_path / "old.pt"), model=f"{tmp_path}/normed.py:new", classes=DIGITS).model
    np.testing.assert_allclose(forward(model)(IMAGES), expected(old.eval()), atol=1e-6)


def test_half_precision_weights_become_float32(net: Any, source: str, tmp_path: Path) -> None:
    torch.save({k: v.half() for k, v in net.state_dict().items()}, tmp_path / "net.pth")
    model = load(str(tmp_path / "net.pth"), model=source, classes=DIGITS).model
    np.testing.assert_allclose(forward(model)(IMAGES), expected(net), atol=1e-2)


@pytest.mark.parametrize("arguments", ["(47)", "(classes=47)", "(47, extra=True)"])
def test_the_arguments_of_model_are_passed(arguments: str, source: str, tmp_path: Path) -> None:
    built = build_from(parse_source(source + arguments))
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


TRACED = """
import torch
from torch import nn

class Traced(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.conv, self.head = nn.BatchNorm2d(1), nn.Conv2d(1, 4, 5, 3), nn.Linear(4 * 8 * 8, 10)

    def forward(self, image):
        maps = self.conv(self.first(image)).relu().tril()
        return self.head(maps.flatten(1))
"""


def test_row11_a_trace_that_has_no_way_back_to_layers_is_exported_all_the_same(tmp_path: Path, glyphpress: Any) -> None:
    (tmp_path / "traced.py").write_text(TRACED)
    net = build_from(parse_source(f"{tmp_path}/traced.py:Traced"))
    net.first.running_mean.fill_(0.3)
    path = tmp_path / "traced.ts"
    torch.jit.trace(net.eval(), torch.zeros(2, 1, 28, 28)).save(str(path))
    model = load(str(path), classes=DIGITS).model
    assert "no layers to prune" in model.history[0]
    np.testing.assert_allclose(forward(model)(IMAGES), expected(net), atol=1e-5)
    plain = ("--data", "builtin:digits", "--orientation", "upright")
    for kind in ("onnx", "tflite"):
        done = glyphpress("export", path, *plain, "-o", tmp_path / f"traced.{kind}")
        assert (done.code, done.err) == (0, "")
    refused = glyphpress("prune", path, *plain, "-o", tmp_path / "pruned.pt2")
    assert (refused.code, refused.err.count("\n")) == (3, 1)


@pytest.mark.parametrize("command", ["prune", "export"])
def test_row11_a_script_that_decides_by_the_image_is_refused_in_one_line(
    command: str, tmp_path: Path, glyphpress: Any
) -> None:
    loop().save(str(tmp_path / "loop.ts"))
    target = tmp_path / {"prune": "loop.pt2", "export": "loop.tflite"}[command]
    done = glyphpress(command, tmp_path / "loop.ts", "--data", "builtin:digits", "--scale", "0-1", "-o", target)
    assert (done.code, done.err.count("\n")) == (3, 1)
    assert "give the checkpoint" in done.err


def loop() -> Any:
    """Return a script whose control flow depends on the image."""

    class Loop(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(784, 10)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            logits = self.head(image.flatten(1))
            while bool(logits.abs().max() > 0.5):
                logits = logits / 2
            return logits

    return torch.jit.script(Loop().eval())


def test_torchscript_with_control_flow_runs_as_it_is(tmp_path: Path) -> None:
    script = loop()
    script.save(str(tmp_path / "loop.pt"))
    model = load(str(tmp_path / "loop.pt"), classes=DIGITS).model
    bright = IMAGES * 40
    np.testing.assert_allclose(forward(model)(bright), script(torch.from_numpy(bright)).detach().numpy(), atol=1e-5)
    assert "run as it is" in model.history[0]


@pytest.mark.parametrize("name", ["net.ts", "net.pt2", "net.onnx", "net.pt"])
def test_row42_the_model_is_what_the_user_gave_and_no_wrapper(
    name: str, net: Any, source: str, tmp_path: Path, glyphpress: Any
) -> None:
    path, blank = tmp_path / name.replace(".onnx", ".float.float.onnx"), torch.zeros(2, 1, 28, 28)
    kinds = {"net.ts": "TorchScript", "net.pt2": "torch.export program", "net.onnx": "ONNX", "net.pt": "Pair"}
    match path.suffix:
        case ".ts":
            torch.jit.trace(net, blank).save(str(path))
        case ".pt2":
            batch = torch.export.Dim("batch", min=1, max=99)
            torch.export.save(torch.export.export(net, (blank,), dynamic_shapes=({0: batch},)), path)
        case ".onnx":
            torch.onnx.export(
                net, (blank,), str(path), dynamo=False, dynamic_axes={"input": {0: "n"}}, input_names=["input"]
            )
        case ".pt":
            torch.save(net.state_dict(), path)
    arguments = source.replace(":Net", ":Pair") if name == "net.pt" else None
    model = load(str(path), model=arguments, classes=DIGITS).model
    assert (model.kind, model.name) == (kinds[name], "net")


def test_safetensors_says_its_classes_and_preprocess_itself(tmp_path: Path) -> None:
    torch.manual_seed(1)
    module = models.build("cnn-small", 10).eval()
    preprocess = Preprocess("transpose", mean=0.5, std=0.5)
    facts = {"model": "cnn-small", "classes": list(DIGITS), "preprocess": preprocess.to_dict()}
    from safetensors.torch import save_file

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


@pytest.mark.parametrize("kind", ["Pair", "Named", "Twice"])
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


@pytest.mark.parametrize("home", ["__main__", "gone"])
def test_a_pickled_class_of_the_training_script_is_found_with_model(
    home: str, net: Any, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type(net)
    with monkeypatch.context() as script:
        script.setitem(sys.modules, "gone", ModuleType("gone"))
        script.setattr(kind, "__module__", home)
        script.setattr(f"{home}.Net", kind, raising=False)
        torch.save(net, tmp_path / "whole.pt")
    with pytest.raises(CheckpointError, match="class is not here"):
        load(str(tmp_path / "whole.pt"), classes=DIGITS, trust_pickle=True)
    model = load(str(tmp_path / "whole.pt"), model=source, classes=DIGITS, trust_pickle=True).model
    np.testing.assert_array_equal(forward(model)(IMAGES), expected(net))


@given(st.lists(st.sampled_from(["module.", "_orig_mod.", "model."]), max_size=4))
def test_any_stack_of_prefixes_comes_off(prefixes: list[str]) -> None:
    names = ["conv.weight", "model.weight", "head.bias"]
    state = {"".join(prefixes) + name: torch.zeros(1) for name in names}
    module = torch.nn.Module()
    for name in names:
        *path, last = name.split(".")
        part = module
        for step in path:
            if step not in dict(part.named_children()):
                part.add_module(step, torch.nn.Module())
            part = part.get_submodule(step)
        part.register_parameter(last, torch.nn.Parameter(torch.ones(1)))
    assert set(fit_state(module, state, "net.pt").tensors) == set(names)
    assert not any(value.any() for value in module.state_dict().values()), "every weight was loaded"


@pytest.mark.parametrize(
    "arguments",
    [
        ("prune", "--method", "magnitude", "--ratio", "50%", "--epochs", 0),
        ("distill", "--epochs", 1, "--channels", "4,4,4,4,4"),
        ("sensitivity", "--method", "magnitude"),
    ],
    ids=["row18-prune", "row18-distill", "row18-sensitivity"],
)
def test_the_weights_that_were_taken_are_said(
    arguments: Any, net: Any, source: str, tmp_path: Path, glyphpress: Any
) -> None:
    path = tmp_path / "both.pt"
    torch.save({"model": net.state_dict(), "model_ema": net.state_dict()}, path)
    command, *rest = arguments
    out = () if command == "sensitivity" else ("-o", tmp_path / "o.pt2")
    done = glyphpress(
        command, path, "--model", source, "--data", "builtin:digits", "--orientation", "upright", *rest, *out
    )
    assert done.code == 0, done.err
    assert done.out.count("weights taken from 'model'; --weights model_ema takes the others") == 1

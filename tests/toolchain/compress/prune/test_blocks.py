"""Every kind of block is really pruned, exported, and read by the runtime that will run it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from calibration.dataset import Dataset
from targets.preprocess import Preprocess
from tests.fixtures.lazy import blocks, nn, torch
from toolchain.checkpoint import CheckpointRequest, load, settle
from toolchain.checkpoint.float_model import FloatModel, TorchModel
from toolchain.compress.prune import prune
from toolchain.compress.prune.graph import ChannelGraph, by_reason, prunable
from toolchain.core.context import RunContext
from toolchain.core.errors import StageError, UsageProblem
from toolchain.export import export, save_program
from toolchain.recipe import Prune

ONE_THREAD = RunContext(threads=1)

BLOCKS = (
    "residual",
    "concatenated",
    "grouped",
    "depthwise",
    "attention packed",
    "attention split",
    "attention of torch",
)


def model_of(module: nn.Module, classes: tuple[str, ...] = tuple("0123456789")) -> FloatModel:
    return TorchModel("block", Preprocess(), classes, "0" * 64, module.eval())


@pytest.mark.slow
@pytest.mark.parametrize("kind", BLOCKS)
def test_a_pruned_block_is_exported_and_answers_as_the_module_does(kind: str, digits: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = model_of(blocks.TIED[kind](), digits.classes)
    epochs = 1 if kind == "residual" else 0
    pruned = prune(model, Prune(ratio=0.5, epochs=epochs), digits, context=ONE_THREAD)
    before, after = (sum(p.numel() for p in one.torch_module("the test").parameters()) for one in (model, pruned))
    assert after < 0.6 * before
    file = export(pruned, "onnx", tmp_path / "pruned.onnx")
    images = digits.images[:8]
    session = onnxruntime.InferenceSession(str(file.path))
    stored = session.get_inputs()[0]
    pixels = file.preprocess.apply(images)
    (answer,) = session.run(None, {stored.name: pixels})
    with torch.no_grad():
        expected = pruned.torch_module("the test")(torch.from_numpy(model.preprocess.apply(images))).numpy()
    assert np.allclose(answer, expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["residual", "concatenated", "grouped", "depthwise"])
def test_channels_without_any_weight_are_those_that_go_and_nobody_misses_them(kind: str) -> None:
    torch.manual_seed(2)
    module = blocks.TIED[kind]().eval()
    possible, _ = prunable(module, kind)
    for group in possible.values():
        silent = [block * (group.width // group.blocks) for block in range(group.blocks)]
        layers = dict(module.named_modules())
        with torch.no_grad():
            for name in (group.layer, *group.tied):
                layer = layers[name]
                layer.weight[silent] = 0
                if layer.bias is not None:
                    layer.bias[silent] = 0
        pruned = copy.deepcopy(module)
        graph = ChannelGraph(pruned, kind)
        graph.cut({group.layer: [0]})
        image = torch.rand(4, 1, 28, 28)
        with torch.no_grad():
            assert torch.allclose(pruned(image), module(image), atol=1e-5), group.layer
        assert ChannelGraph(pruned, kind).channels[group.layer].width == group.width - group.blocks


def test_a_layer_that_the_models_own_code_counts_on_stays_and_is_named(digits: Dataset) -> None:
    model = model_of(blocks.Rigid(), digits.classes)
    pruned = prune(model, Prune(ratio=0.5, epochs=0), digits, context=ONE_THREAD)
    module = pruned.torch_module("the test")
    assert (module.stem.out_channels, module.free.out_channels) == (16, 8)
    assert "left whole: stem: the model does not run with fewer of its channels" in pruned.history[-1]
    with pytest.raises(UsageProblem, match="stem cannot be pruned: the model does not run"):
        prune(model, Prune(layers={"stem": 0.5}, epochs=0), digits, context=ONE_THREAD)


@pytest.mark.parametrize(("kind", "layer"), [("flattened last", "free"), ("shuffled", "grouped")])
def test_channels_that_change_places_on_the_way_stay_and_say_so(kind: str, layer: str) -> None:
    """torch-pruning takes away the weights of others, and the model still runs."""
    torch.manual_seed(3)
    module = blocks.Reordered(kind).eval()
    possible, refused = prunable(module, kind)
    assert "its channels change their order" in refused[layer]
    assert "stem" in possible
    places = [0, 1]
    pruned = copy.deepcopy(module)
    graph = ChannelGraph(pruned, kind)
    with torch.no_grad():
        image = torch.rand(4, 1, 28, 28)
        with graph.zeroed(layer, places):
            meant = pruned(image)
        graph.cut({layer: places})
        assert not torch.allclose(pruned(image), meant, atol=1e-2)


def test_one_slope_for_all_channels_does_not_keep_them_from_being_pruned() -> None:
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 16, 5, 3), nn.PReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10)
    module = nn.Sequential(*layers).eval()
    channels, refused = prunable(module, "slope")
    assert (list(channels), refused) == (["0"], {"4": "it gives the logits"})
    graph = ChannelGraph(copy.deepcopy(module), "slope")
    graph.cut({"0": list(range(4))})
    assert graph.module[4].in_features == 48
    assert graph.module(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_a_mean_over_channels_is_the_reason_why_they_stay() -> None:
    class Weighed(nn.Module):  # type: ignore[misc]
        """A map that is scaled by the mean over its channels."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.last = nn.Conv2d(1, 16, 5, 3), nn.Conv2d(16, 8, 3)
            self.head = nn.Linear(8, 10)

        def forward(self, image: Any) -> Any:
            """Return the logits."""
            maps = self.conv(image)
            return self.head(self.last(maps * maps.mean(1, keepdim=True)).amax((2, 3)))

    torch.manual_seed(0)
    channels, refused = prunable(Weighed().eval(), "weighed")
    assert list(channels) == ["last"]
    assert refused["conv"] == "a mean or maximum is taken over its channels, which would be another one over fewer"


def test_a_layer_that_cannot_be_pruned_is_not_ranked_either(digits: Dataset) -> None:
    pruned = prune(model_of(blocks.Chunked(), digits.classes), Prune(ratio=0.5, epochs=0), digits, context=ONE_THREAD)
    module = pruned.torch_module("the test")
    assert (module.qkv.out_features, module.hidden.out_features) == (96, 32)
    assert "left whole: qkv" in pruned.history[-1]


def test_a_program_that_was_pruned_can_be_pruned_again_to_the_last_layer(digits: Dataset, tmp_path: Path) -> None:
    """ONNX writes the width of a flattened map as a number, which fewer channels would not fill."""
    once = prune(
        model_of(blocks.Concatenated(), digits.classes),
        Prune(ratio=0.5, epochs=0, round_to=2),
        digits,
        context=ONE_THREAD,
    )
    save_program(once, tmp_path / "once.pt2")
    again = settle(str(tmp_path / "once.pt2"), CheckpointRequest(), None).model
    possible, refused = prunable(again.torch_module("the test"), "again")
    assert {"left", "right", "mix"} <= {name.rsplit(".", 1)[-1] for name in possible}
    assert list(refused.values()) == ["it gives the logits"]


def test_layers_whose_weights_no_method_reaches_are_named(digits: Dataset) -> None:
    step = Prune(method="magnitude", ratio=0.5, epochs=0)
    assert (
        "left whole: rows (LSTM)"
        in prune(model_of(blocks.Recurrent(), digits.classes), step, digits, context=ONE_THREAD).history[-1]
    )


def test_a_model_of_one_batch_alone_is_one_line(digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="does not take 256 images at once") as caught:
        export(model_of(blocks.Pairs(), digits.classes), "onnx", tmp_path / "pairs.onnx")
    assert "\n" not in str(caught.value)


def test_a_graph_without_end_is_refused(digits: Dataset) -> None:
    with pytest.raises(StageError, match="flattened already"):
        prune(model_of(blocks.FlatJoin(), digits.classes), Prune(ratio=0.5, epochs=0), digits, context=ONE_THREAD)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("fc", "gives the logits"),
        ("conv2", "tied to stem, whose channels it shares"),
        ("conv3", "did you mean conv1"),
        ("norm", "did you mean stem, conv1"),
    ],
)
def test_a_layer_that_cannot_be_pruned_is_refused_with_the_reason(layer: str, message: str, digits: Dataset) -> None:
    with pytest.raises(UsageProblem, match=message):
        prune(model_of(blocks.Residual(), digits.classes), Prune(layers={layer: 0.5}), digits, context=ONE_THREAD)


def test_one_layer_alone_is_pruned_by_its_own_ratio(digits: Dataset) -> None:
    torch.manual_seed(3)
    model = model_of(blocks.Residual(), digits.classes)
    alone = prune(model, Prune(layers={"conv1": 0.6}, epochs=0), digits, context=ONE_THREAD).torch_module("the test")
    assert (alone.stem.out_channels, alone.conv1.out_channels) == (16, 8)
    both = prune(model, Prune(layers={"conv1": 0.6}, ratio=0.5, epochs=0), digits, context=ONE_THREAD).torch_module(
        "the test"
    )
    assert (both.stem.out_channels, both.conv2.out_channels, both.conv1.out_channels) == (8, 8, 8)
    fine = prune(model, Prune(ratio=0.25, round_to=1, epochs=0), digits, context=ONE_THREAD).torch_module("the test")
    assert (fine.stem.out_channels, fine.conv1.out_channels) == (12, 18)


@pytest.mark.parametrize("name", ["Spatial", "Pooled"], ids=["row23-Spatial", "row23-Pooled"])
def test_a_map_of_one_channel_does_not_tie_those_that_it_scales(name: str, digits: Dataset) -> None:
    torch.manual_seed(0)
    module = getattr(blocks, name)()
    pruned = prune(model_of(module, digits.classes), Prune(ratio=0.5, epochs=0, round_to=4), digits, context=ONE_THREAD)
    assert pruned.torch_module("looking").conv.out_channels == 8
    assert "it has a single channel" in pruned.history[-1]
    assert pruned.history[-1].count("it has a single channel") == 1


def test_row23_a_reason_is_said_once() -> None:
    message = by_reason({"a": "it gives the logits", "b": "it has a single channel", "c": "it has a single channel"})
    assert message == "a: it gives the logits; b, c: it has a single channel"


def test_row23_computed_weights_are_kept_as_weights(digits: Dataset, tmp_path: Path, glyphpress: Any) -> None:
    torch.manual_seed(0)
    module = blocks.reweighed().eval()
    images = torch.rand(4, 1, 28, 28)
    expected = module(images).detach()
    torch.save(module.state_dict(), tmp_path / "m.pt")
    arguments = ("--model", "tests.fixtures.blocks:reweighed", "--data", "builtin:digits", "--orientation", "upright")
    model = load(str(tmp_path / "m.pt"), model=arguments[1], classes=digits.classes).model
    plain = model.torch_module("looking")
    assert "weights computed once and kept: 0, 2, 4, 6, 8, 10, 12, 15" in model.history
    torch.testing.assert_close(plain(images), expected)
    assert not any(hook for part in plain.modules() for hook in part._forward_pre_hooks.values())
    assert {type(part).__name__ for part in plain} == {"Conv2d", "ReLU", "Flatten", "Linear"}
    pruned = prune(model, Prune(ratio=0.5, epochs=0, round_to=4), digits, context=ONE_THREAD)
    assert pruned.torch_module("looking")[0].out_channels == 4
    shown = glyphpress("inspect", tmp_path / "m.pt", *arguments[:2], "--json")
    assert {layer["kind"] for layer in json.loads(shown.out)["layers"]} == {"Conv2d", "ReLU", "Flatten", "Linear"}
    quick = ("--ratio", "50%", "--round-to", 4, "--epochs", 0)
    for command, *more in (("prune", *quick, "-o", tmp_path / "p.pt2"), ("export", "-o", tmp_path / "e.onnx")):
        done = glyphpress(command, tmp_path / "m.pt", *arguments, *more)
        assert (done.code, done.err.count("Traceback")) == (0, 0)

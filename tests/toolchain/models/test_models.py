"""The reference architectures: what is built, what ships, and what later stages need of them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from calibration.load import load as load_images
from targets.artifact import file_sha256
from targets.preprocess import Preprocess
from tests.fixtures.lazy import nn, torch
from toolchain import models
from toolchain.checkpoint.float_model import forward
from toolchain.checkpoint.load import load
from toolchain.compress.prune.graph import prunable
from toolchain.core.errors import CheckpointError, UsageProblem
from toolchain.models.saving import save
from toolchain.training.fit import accuracy


def with_lived_in_norms(module: nn.Module) -> nn.Module:
    """Give the batch norms statistics that are not their start values, so that a wrong fold shows."""
    torch.manual_seed(1)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 2)
    return module.eval()


def test_cnn_small_has_the_size_it_is_known_for() -> None:
    module = models.build("cnn-small", classes=47)
    assert sum(parameter.numel() for parameter in module.parameters()) == 213_591
    assert module(torch.zeros(2, 1, 28, 28)).shape == (2, 47)


def test_width_scales_every_channel_count() -> None:
    narrow = models.build("cnn-small", classes=10, width=0.5).eval()
    assert [layer.out_channels for layer in narrow.modules() if isinstance(layer, nn.Conv2d)] == [
        16,
        24,
        32,
        48,
        64,
        64,
    ]
    assert narrow(torch.zeros(1, 1, 28, 28)).shape == (1, 10)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageProblem, match=r"did you mean .*cnn-small"):
        models.build("cnn-smal", classes=10)
    with pytest.raises(UsageProblem, match="train --help"):
        models.shipped_weights("nothing-like-it")


def test_options_that_the_architecture_does_not_take_are_refused() -> None:
    with pytest.raises(UsageProblem, match="depth"):
        models.build("cnn-small", classes=10, depth=3)
    with pytest.raises(UsageProblem, match="two classes"):
        models.build("cnn-small", classes=1)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"channels": [8, 8, 0, 8, 8]}, "features.conv3.weight would have no weights"),
        ({"channels": [8, 8, -3, 8, 8]}, "negative dimension -3"),
        ({"channels": [8, 8, 10**9, 8, 8]}, "146,000,001,650 parameters are more than 200,000,000"),
        ({"width": 1e300}, "Overflow"),
        ({"dropout": 2}, "between 0 and 1"),
        ({"channels": "abcde"}, "converted"),
    ],
    ids=["row35-none", "row35-negative", "row35-huge", "row35-overflow", "row35-dropout", "row35-text"],
)
@pytest.mark.filterwarnings("error")
def test_options_out_of_a_damaged_checkpoint_are_refused_in_one_line_that_names_it(
    tmp_path: Path, options: dict[str, Any], why: str
) -> None:
    path, module = tmp_path / "x.pt", models.build("cnn-small", classes=10, channels=(8, 8, 8, 8, 8))
    save(path, module, {"model": "cnn-small", "classes": list("0123456789"), "options": options})
    with pytest.raises(CheckpointError, match=re.escape(why)) as refused:
        load(str(path))
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", models.names())
def test_every_model_folds_its_batch_norms(name: str) -> None:
    module = with_lived_in_norms(models.build(name, classes=10))
    graph = torch.fx.symbolic_trace(module)
    layers = dict(graph.named_modules())
    pairs = [
        (layers[node.args[0].target], layers[node.target])
        for node in graph.graph.nodes
        if node.op == "call_module" and isinstance(layers[node.target], nn.BatchNorm2d)
    ]
    assert all(isinstance(convolution, nn.Conv2d) for convolution, _ in pairs)
    assert len(pairs) == sum(isinstance(layer, nn.BatchNorm2d) for layer in layers.values())
    image = torch.rand(2, 1, 28, 28)
    expected = module(image)
    for convolution, norm in pairs:
        fused = torch.nn.utils.fusion.fuse_conv_bn_eval(convolution, norm)
        convolution.bias = nn.Parameter(torch.empty(0))
        convolution.weight, convolution.bias = fused.weight, fused.bias
        norm.reset_running_stats()
        nn.init.ones_(norm.weight)
        nn.init.zeros_(norm.bias)
        norm.eps = 0.0
    torch.testing.assert_close(module(image), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", models.names())
def test_every_model_exports_with_a_dynamic_batch(name: str) -> None:
    module = with_lived_in_norms(models.build(name, classes=10))
    batch = torch.export.Dim("batch")
    program = torch.export.export(module, (torch.zeros(2, 1, 28, 28),), dynamic_shapes=({0: batch},))
    images = torch.rand(5, 1, 28, 28)
    torch.testing.assert_close(program.module()(images), module(images))


@pytest.mark.parametrize("name", models.names())
def test_every_model_can_be_pruned(name: str) -> None:
    import torch_pruning as pruning

    module = with_lived_in_norms(models.build(name, classes=10))
    before = sum(parameter.numel() for parameter in module.parameters())
    pruner = pruning.pruner.MetaPruner(
        module,
        torch.zeros(1, 1, 28, 28),
        importance=pruning.importance.MagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=[module.classifier],
    )
    pruner.step()
    assert sum(parameter.numel() for parameter in module.parameters()) < 0.6 * before
    assert module(torch.zeros(3, 1, 28, 28)).shape == (3, 10)


@pytest.mark.parametrize("name", models.names())
def test_pruning_leaves_no_layer_of_ours_whole_that_has_channels_to_spare(name: str) -> None:
    _, refused = prunable(with_lived_in_norms(models.build(name, classes=10)), name)
    assert set(refused.values()) <= {"it gives the logits", "it has a single channel"}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_saved_weights_come_back_bit_for_bit(tmp_path, suffix: str) -> None:
    module = with_lived_in_norms(models.build("cnn-small", classes=10)).to(memory_format=torch.channels_last)
    path = tmp_path / f"model{suffix}"
    save(path, module, {"model": "cnn-small", "classes": list("0123456789")})
    if suffix == ".pt":
        content = torch.load(path, weights_only=True)
        facts, weights = content, content["state_dict"]
    else:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["glyphpress"])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    assert facts["schema"] == "glyphpress/checkpoint/1"
    assert facts["model"] == "cnn-small"
    assert facts["classes"] == list("0123456789")
    fresh = models.build("cnn-small", classes=10)
    fresh.load_state_dict(weights)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in module.state_dict().items())
    torch.testing.assert_close(fresh.eval()(torch.ones(1, 1, 28, 28)), module(torch.ones(1, 1, 28, 28)))


def test_saving_refuses_a_name_that_says_nothing(tmp_path) -> None:
    with pytest.raises(UsageProblem, match=r"\.safetensors"):
        save(tmp_path / "model.txt", nn.Linear(2, 2), {})
    assert not list(tmp_path.iterdir())


def shipped(name: str) -> tuple[nn.Module, dict]:
    path = models.shipped_weights(name)
    assert path is not None
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["glyphpress"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    module = models.build(facts["model"], classes=len(facts["classes"]), **facts["options"])
    module.load_state_dict(weights)
    return module.eval(), facts


@pytest.mark.parametrize(("name", "bytes_", "least"), [("cnn-small", 1_000_000, 0.885), ("cnn-deep", 1_500_000, 0.899)])
def test_shipped_weights_are_small_and_say_what_they_are(name: str, bytes_: int, least: float) -> None:
    path = models.shipped_weights(name)
    assert path is not None
    assert path.stat().st_size < bytes_
    _, facts = shipped(name)
    assert len(facts["classes"]) == 47
    assert facts["test"]["accuracy"] >= least
    card = path.with_suffix(".md").read_text()
    assert file_sha256(path) in card
    assert f"{facts['test']['right']:,} of {facts['test']['images']:,} images" in card


@pytest.mark.parametrize("name", models.shipped_names())
def test_shipped_weights_read_the_built_in_digits(name: str) -> None:
    # Other hands, another scanner: nothing of these was in training.
    module, facts = shipped(name)
    digits = load_images("builtin:digits", "test")
    pixels = Preprocess.from_dict(facts["preprocess"]).apply(digits.images)
    logits = module(torch.from_numpy(pixels))
    columns = [facts["classes"].index(name) for name in digits.classes]
    right = (logits[:, columns].argmax(1).numpy() == digits.labels).mean()
    assert right > 0.8
    # The press reads them as the layers do: in float32, whatever the file holds.
    model = load(name).model
    assert model.classes == tuple(facts["classes"])
    assert np.array_equal(forward(model)(pixels), logits.detach().numpy())


@pytest.mark.slow
@pytest.mark.parametrize("name", models.shipped_names())
def test_shipped_weights_reach_what_the_card_says(name: str, emnist_root) -> None:
    module, facts = shipped(name)
    test = load_images(f"{emnist_root / 'resplit'}:balanced", "test")
    assert test.sha256 == facts["test"]["sha256"]
    assert tuple(facts["classes"]) == test.classes
    # Few at a time, in this order in memory: cnn-deep takes half a minute otherwise.
    module, preprocess = module.to(memory_format=torch.channels_last), Preprocess.from_dict(facts["preprocess"])
    parts = [test.take(part, "some") for part in np.array_split(np.arange(len(test)), 200)]
    right = sum(accuracy(module, part, preprocess) * len(part) for part in parts)
    # Another CPU may round a handful of the 18,800 the other way.
    assert right / len(test) == pytest.approx(facts["test"]["accuracy"], abs=5 / len(test))
    card = models.shipped_weights(name).with_suffix(".md").read_text()
    assert f"{facts['test']['accuracy']:.2%}".replace("%", " %") in card
    assert np.isclose(facts["test"]["right"] / facts["test"]["images"], facts["test"]["accuracy"])


def test_half_the_bytes_keep_vectors_whole_and_load_as_float32(tmp_path: Path) -> None:
    module = with_lived_in_norms(models.build("cnn-small", classes=10))
    facts = {"model": "cnn-small", "options": {}, "classes": list("0123456789"), "preprocess": Preprocess().to_dict()}
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    save(whole, module, facts)
    save(half, module, facts, half=True)
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    state = load(str(half)).model.torch_module("this test").state_dict()
    for key, weight in module.state_dict().items():
        rounded = weight.half().to(weight.dtype) if weight.ndim > 1 else weight
        assert state[key].dtype == weight.dtype
        assert torch.equal(state[key], rounded), key


@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    [
        ("mlp-100x3", 26, 101_326),
        ("lenet5", 10, 61_706),
        ("cnn-keras", 10, 887_530),
        ("cnn-deep", 47, 634_831),
        ("resnet18", 47, 705_951),
        ("densenet", 47, 145_015),
        ("cnn-attention", 47, 311_024),
        ("dscnn", 47, 29_759),
    ],
)
def test_every_model_has_the_parameters_that_its_docstring_gives(name: str, classes: int, parameters: int) -> None:
    module = models.build(name, classes=classes)
    assert sum(parameter.numel() for parameter in module.parameters()) == parameters
    docstring = " ".join(str(sys.modules[type(module).__module__].__doc__).split())
    assert f"or {classes} classes {parameters:,} parameters" in docstring

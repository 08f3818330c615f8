from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calibration.dataset import Dataset
from calibration.sample import draw
from targets import catalog
from targets.artifact import Artifact
from targets.preprocess import Preprocess
from tests.fixtures.lazy import blocks, nn, torch
from toolchain.checkpoint.float_model import FloatModel, TorchModel
from toolchain.compress.equalize import equalize
from toolchain.core.context import RunContext
from toolchain.core.errors import StageError
from toolchain.export import export
from toolchain.quantize import quantize
from toolchain.recipe import Equalize, Quantize, parse

DIGITS = tuple("0123456789")


def model(kind: type[nn.Module]) -> FloatModel:
    torch.manual_seed(0)
    module = kind().eval()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-1, 1)
            layer.running_var.uniform_(0.5, 2)
    return TorchModel("tried", Preprocess(), DIGITS, "0" * 64, module)


def answers(one: FloatModel) -> np.ndarray:
    images = torch.rand(64, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return one.torch_module("the test")(images).numpy()


def test_answers_stay_and_neighbours_meet_at_one_scale() -> None:
    before = model(blocks.Chain)
    after = equalize(before, Equalize())
    assert np.abs(answers(after) - answers(before)).max() < 1e-5
    assert "equalized 4 pairs of layers" in after.history[-1]
    module = after.torch_module("the test")
    ours = module.depthwise.weight.abs().flatten(1).amax(1)
    theirs = module.hidden.weight.reshape(12, 16, 16).abs().amax((0, 2))
    assert torch.allclose(ours, theirs, rtol=0.01)
    # Grouped: an input channel is read by the outputs of its own group alone.
    ours = module.one.weight.abs().flatten(1).amax(1)
    theirs = module.grouped.weight.reshape(2, 4, 4, 9).abs().amax((1, 3)).flatten()
    assert torch.allclose(ours, theirs, rtol=0.01)


def test_the_model_that_was_given_stays_as_it_is() -> None:
    before = model(blocks.Chain)
    weights = copy.deepcopy(before.torch_module("the test").state_dict())
    equalize(before, Equalize())
    assert all(torch.equal(weights[name], one) for name, one in before.torch_module("the test").state_dict().items())


def test_branches_and_other_activations_are_left_alone_and_counted() -> None:
    before = model(blocks.Branched)
    after = equalize(before, Equalize())
    assert np.abs(answers(after) - answers(before)).max() < 1e-5
    assert "equalized 1 pairs" in after.history[-1]
    assert "1 before add" in after.history[-1]
    assert "1 whose output is read more than once" in after.history[-1]
    was, module = before.torch_module("the test"), after.torch_module("the test")
    assert torch.equal(module.inside.weight, was.inside.weight)
    assert not torch.equal(module.after.weight, was.after.weight)


def test_a_model_without_any_such_layers_is_refused_with_the_reason() -> None:
    with pytest.raises(StageError, match=r"no two layers can be equalized \(1 before sigmoid\)"):
        equalize(model(blocks.Bent), Equalize())
    only_onnx = replace(model(blocks.Bent), module=None, refusal="operator Loop has no counterpart in torch")
    with pytest.raises(StageError, match="needs the model in torch: operator Loop"):
        equalize(only_onnx, Equalize())


def badly_scaled(one: FloatModel) -> FloatModel:
    """The same answers, with the channels between two layers up to 1000 times larger than one another."""
    module = copy.deepcopy(one.torch_module("the test"))
    chance = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for number in range(1, 5):
            norm, after = (
                getattr(module.features, f"{kind}{index}") for kind, index in (("norm", number), ("conv", number + 1))
            )
            factor = 10 ** (3 * torch.rand(len(norm.weight), generator=chance) - 1.5)
            norm.weight *= factor
            norm.bias *= factor
            after.weight /= factor.reshape(1, -1, 1, 1)
    return replace(one, module=module)


@pytest.mark.slow
def test_equalizing_brings_back_what_a_bad_scale_cost(
    float_model: FloatModel, digits: Dataset, digits_test: Dataset, tmp_path: Path
) -> None:
    bad = badly_scaled(float_model)
    recipe = parse('name = "even"\n[[steps]]\nkind = "equalize"', "the test")
    even = recipe.apply(bad, RunContext(threads=1), digits)
    images = draw(digits, 64, seed=0, exclude=digits_test)

    def right(one: FloatModel, name: str) -> tuple[float, float]:
        source = export(one, "onnx", tmp_path / f"{name}.float.onnx")
        step = Quantize(scheme="static-int8", per_channel=False)
        pressed = quantize(source, step, images, tmp_path / f"{name}.onnx", recipe=name)
        return accuracy(source), accuracy(pressed)

    def accuracy(file: Artifact) -> float:
        with catalog.default_for("onnx").open(file) as session:
            return float((session.run(digits_test.images).argmax(1) == digits_test.labels).mean())

    (float_bad, int8_bad), (float_even, int8_even) = right(bad, "bad"), right(even, "even")
    assert abs(float_even - float_bad) < 0.002
    assert int8_bad < float_bad - 0.1
    assert int8_even > float_even - 0.01

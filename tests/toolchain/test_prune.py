from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from calibration.dataset import Dataset
from targets.preprocess import Preprocess
from toolchain.checkpoint import CheckpointRequest, load, settle
from toolchain.errors import StageError, UsageProblem
from toolchain.export import export
from toolchain.fit import accuracy
from toolchain.model import FloatModel
from toolchain.prune import prune
from toolchain.steps import Prune


def widths(module: nn.Module) -> list[int]:
    return [layer.out_channels for layer in module.modules() if isinstance(layer, nn.Conv2d)]


def test_channels_go_the_logits_stay_and_fine_tuning_brings_the_reading_back(
    float_model: FloatModel, digits: Dataset, digits_test: Dataset
) -> None:
    bare = prune(float_model, Prune(ratio=0.5, epochs=0), digits, threads=1)
    tuned = prune(float_model, Prune(ratio=0.5, epochs=4), digits, threads=1)
    before, after = widths(float_model.torch_module("the test")), widths(bare.torch_module("the test"))
    assert all(width % 8 == 0 for width in after)
    assert sum(after) <= 0.55 * sum(before)
    assert bare.torch_module("the test")(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    share = [accuracy(model.torch_module("the test"), digits_test, model.preprocess) for model in (bare, tuned)]
    assert share[1] > 0.9
    assert share[1] > share[0]
    assert "pruned 50% of the channels" in tuned.history[-1]


def test_the_model_that_was_given_stays_as_it_is(float_model: FloatModel, digits: Dataset) -> None:
    module = float_model.torch_module("the test")
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    prune(float_model, Prune(ratio=0.25, epochs=1), digits, threads=1)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_the_same_seed_prunes_the_same(float_model: FloatModel, digits: Dataset) -> None:
    one, two = (prune(float_model, Prune(ratio=0.25, epochs=1), digits, seed=3, threads=1) for _ in range(2))
    pairs = zip(
        one.torch_module("the test").state_dict().values(),
        two.torch_module("the test").state_dict().values(),
        strict=True,
    )
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_pruned_model_is_exported_with_its_own_shapes(float_model: FloatModel, digits: Dataset, tmp_path) -> None:
    pruned = prune(float_model, Prune(ratio=0.5, epochs=0), digits, threads=1)
    whole = export(float_model, "onnx", tmp_path / "whole.onnx")
    assert export(pruned, "onnx", tmp_path / "pruned.onnx").size < 0.4 * whole.size


class Tangled(nn.Module):
    """Has no layer whose channels could go."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.flatten(1)[:, :10]


def test_what_cannot_be_pruned_is_refused_with_the_reason(float_model: FloatModel, digits: Dataset) -> None:
    only_onnx = replace(float_model, module=None, refusal="operator Loop has no counterpart in torch")
    with pytest.raises(StageError, match="pruning needs the model in torch: operator Loop"):
        prune(only_onnx, Prune(ratio=0.5), digits)
    tangled = FloatModel("tangled", Tangled().eval(), Preprocess(), digits.classes, "0" * 64)
    with pytest.raises(StageError, match="no Linear or Conv2d"):
        prune(tangled, Prune(ratio=0.5), digits)


def test_a_test_split_is_never_fine_tuned_on(float_model: FloatModel, digits_test: Dataset) -> None:
    with pytest.raises(UsageProblem, match="test split"):
        prune(float_model, Prune(ratio=0.25, epochs=1), digits_test)


def test_the_command_writes_a_program_that_the_press_reads_back(
    glyphpress, checkpoint, digits_test: Dataset, tmp_path
) -> None:
    out = tmp_path / "pruned.pt2"
    done = glyphpress("prune", checkpoint, "--data", "builtin:digits", "--ratio", "50%", "--epochs", "2", "-o", out)
    assert done.code == 0, done.err
    assert "parameters" in done.out
    loaded = load(str(out))
    assert loaded.preprocess_known
    assert loaded.model.classes == digits_test.classes
    assert any("pruned 50%" in line for line in loaded.model.history)
    settled = settle(str(out), CheckpointRequest(), None).model
    pruned = export(settled, "onnx", tmp_path / "pruned.float.onnx")
    assert pruned.size < 400_000
    again = glyphpress("prune", checkpoint, "--data", "builtin:digits", "-o", out)
    assert again.code == 2
    assert "--force" in again.err

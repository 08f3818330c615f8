from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.dataset import Dataset
from calibration.sample import draw
from targets import catalog
from targets.preprocess import Preprocess
from tests.fixtures.lazy import Lazy, nn, torch
from toolchain.checkpoint import CheckpointRequest, settle
from toolchain.checkpoint.float_model import FloatModel, Range, TorchModel
from toolchain.compress.distill import distill
from toolchain.compress.qat import qat
from toolchain.core.context import RunContext
from toolchain.core.errors import PolicyError, StageError
from toolchain.export import export, save_program
from toolchain.quantize import quantize
from toolchain.recipe import Distill, Qat, Quantize, parse

grids = Lazy("toolchain.compress.fake_quantize")
INT4 = Quantize(scheme="static-int4", calibration_images=64)


@given(st.integers(0, 10_000), st.sampled_from([7, 64, 127]))
def test_rounded_weights_are_found_again_by_the_maximum_of_their_channel(seed: int, top: int) -> None:
    """What the quantizers do: a scale of max / top gives back the very integers of training."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(5, 3, 3, 3, generator=generator) * torch.rand(5, 1, 1, 1, generator=generator)
    grid = grids.WeightGrid(weight, top)
    # As if training had moved the ends: also beyond the largest weight.
    grid.ends.data *= 0.5 + 1.5 * torch.rand(5, generator=generator)
    rounded = grid(weight).detach()
    again = rounded / (rounded.flatten(1).abs().amax(1).view(-1, 1, 1, 1) / top)
    assert torch.allclose(again, again.round(), atol=1e-3)
    assert int(again.abs().max().round()) == top


@given(st.floats(-4, 0), st.floats(0.01, 8))
def test_an_inputs_range_has_zero_as_a_level_and_clips_what_lies_beyond(low: float, high: float) -> None:
    grid = grids.InputGrid(low, high, learned=True)
    ends = [float(end.detach()) for end in grid.ends()]
    step = (ends[1] - ends[0]) / 255
    assert abs(ends[0] / step - round(ends[0] / step)) < 1e-3
    answers = grid(torch.tensor([-100.0, 0.0, 100.0])).detach()
    assert answers.tolist() == pytest.approx([ends[0], 0.0, ends[1]], abs=1e-4 * (high - low))


def test_gradients_move_weights_and_ends_through_the_rounding() -> None:
    weight = torch.randn(4, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    grid, entering = grids.WeightGrid(weight, 7), grids.InputGrid(-1.0, 1.0, learned=True)
    entering(grid(weight) * 0.3).square().sum().backward()
    for moved in (weight, grid.ends, entering.low, entering.high):
        assert moved.grad is not None
        assert moved.grad.isfinite().all()
    assert weight.grad is not None
    assert float(weight.grad.abs().sum()) > 0


@pytest.fixture(scope="module")
def student(float_model: FloatModel, digits: Dataset) -> FloatModel:
    step = Distill(student="cnn-small", channels=(8, 8, 16, 16, 16), epochs=6)
    return distill(float_model, step, digits, teacher=float_model, context=RunContext(threads=1))


@pytest.fixture(scope="module")
def trained(student: FloatModel, float_model: FloatModel, digits: Dataset) -> FloatModel:
    return qat(student, Qat(epochs=2), INT4, digits, teacher=float_model, context=RunContext(threads=1))


@pytest.mark.slow
def test_four_bits_cost_little_where_they_were_trained(
    student: FloatModel, trained: FloatModel, digits: Dataset, digits_test: Dataset, tmp_path: Path
) -> None:
    images = draw(digits, 64, seed=0, exclude=digits_test)
    moved = {}
    for name, model in (("plain", student), ("trained", trained)):
        source = export(model, "onnx", tmp_path / f"{name}.float.onnx")
        made = quantize(source, INT4, images, tmp_path / f"{name}.onnx", recipe="x", learned=model.input_ranges)
        answers = []
        for file in (source, made):
            with catalog.default_for("onnx").open(file) as session:
                answers.append(session.run(digits_test.images))
        moved[name] = float(np.abs(answers[0] - answers[1]).mean())
    assert moved["trained"] < 0.25 * moved["plain"]
    assert (answers[1].argmax(1) == digits_test.labels).mean() > 0.9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "scheme"), [("onnx", "static-int4"), ("onnx", "static-int8"), ("tflite", "static-int8")]
)
def test_the_file_answers_as_training_saw_it_with_the_ranges_that_it_learned(
    kind, scheme, student: FloatModel, trained: FloatModel, digits: Dataset, digits_test: Dataset, tmp_path: Path
) -> None:
    images = draw(digits, 64, seed=0, exclude=digits_test)
    source = export(trained, kind, tmp_path / f"float.{kind}")
    step = Quantize(scheme=scheme, calibration_images=64)
    learned = trained.input_ranges
    narrow = tuple(Range(one.low / 20, one.high / 20) for one in learned)
    answers = []
    for number, ranges in enumerate((learned, narrow)):
        made = quantize(source, step, images, tmp_path / f"{number}.{kind}", recipe="x", learned=ranges)
        with catalog.default_for(kind).open(made) as session:
            answers.append(session.run(digits_test.images).argmax(1))
    with catalog.default_for(kind).open(source) as session:
        exact = session.run(digits_test.images).argmax(1)
    assert (answers[0] == exact).mean() > 0.97
    # Ranges that clip nearly everything are obeyed too: they come from nowhere else.
    assert (answers[1] == exact).mean() < 0.9


def test_a_saved_model_keeps_the_ranges(trained: FloatModel, tmp_path: Path) -> None:
    save_program(trained, tmp_path / "trained.pt2")
    loaded = settle(str(tmp_path / "trained.pt2"), CheckpointRequest(), None).model
    assert loaded.input_ranges == trained.input_ranges
    assert len(loaded.input_ranges) == 7
    image = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    pairs = [model.torch_module("the test")(image).detach().numpy() for model in (trained, loaded)]
    assert np.allclose(*pairs, atol=1e-5)


def test_ranges_of_another_model_are_refused(
    trained: FloatModel, floats, digits: Dataset, digits_test: Dataset, tmp_path: Path
) -> None:
    images = draw(digits, 64, seed=0, exclude=digits_test)
    with pytest.raises(StageError, match="7 layers with weights, but training learned the ranges of 6"):
        quantize(floats["onnx"], INT4, images, tmp_path / "x.onnx", recipe="x", learned=trained.input_ranges[1:])
    assert not (tmp_path / "x.onnx").exists()


def test_a_model_without_a_layer_is_refused(digits: Dataset) -> None:
    class Bare(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image.flatten(1)[:, :10]

    bare = TorchModel("bare", Preprocess(), digits.classes, "0" * 64, Bare())
    with pytest.raises(StageError, match="nothing to quantize"):
        qat(bare, Qat(epochs=1), INT4, digits, teacher=bare, context=RunContext(threads=1))


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param('[[steps]]\nkind = "qat"', id="nothing follows"),
        pytest.param('[[steps]]\nkind = "qat"\n[[steps]]\nkind = "quantize"\nscheme = "dynamic-int8"', id="dynamic"),
        pytest.param(
            '[[steps]]\nkind = "qat"\n[[steps]]\nkind = "distill"\n[[steps]]\nkind = "quantize"\nscheme="static-int8"',
            id="something between",
        ),
    ],
)
def test_qat_stands_right_before_a_static_scheme(steps: str) -> None:
    with pytest.raises(PolicyError, match="right before the quantize step"):
        parse(f'name = "x"\n{steps}', "mine.toml")

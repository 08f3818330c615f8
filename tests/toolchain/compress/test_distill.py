from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from calibration.dataset import Dataset
from targets.preprocess import Preprocess
from tests.fixtures.lazy import nn, torch
from toolchain.checkpoint import CheckpointRequest, settle
from toolchain.checkpoint.float_model import FloatModel, TorchModel
from toolchain.compress import StepContext
from toolchain.compress.distill import distill
from toolchain.compress.equalize import folded
from toolchain.core.context import RunContext
from toolchain.core.errors import CheckpointError, StageError, UsageProblem
from toolchain.recipe import Distill, Prune, Recipe
from toolchain.training.fit import accuracy
from toolchain.training.loss import Lesson, taught_by

ONE_THREAD = RunContext(threads=1)

NARROW = (8, 8, 16, 16, 16)


def module(model: FloatModel) -> nn.Module:
    return model.torch_module("the test")


@pytest.mark.slow
def test_a_student_learns_the_answers_of_its_teacher_not_the_labels(
    float_model: FloatModel, digits: Dataset, digits_test: Dataset
) -> None:
    # Of labels that are all shuffled only the teacher's answers make sense.
    chance = np.random.default_rng(0)
    shuffled = Dataset.of(digits.images, chance.permutation(digits.labels), digits.classes, digits.origin, "train")
    step = Distill(student="cnn-small", channels=NARROW, epochs=6, soft=1.0)
    student = distill(float_model, step, shuffled, teacher=float_model, context=ONE_THREAD)
    assert accuracy(module(student), digits_test, student.preprocess) > 0.8
    assert [layer.out_channels for layer in module(student).modules() if isinstance(layer, nn.Conv2d)][:5] == [*NARROW]
    assert "from digits for 6 epochs" in student.history[-1]


def test_a_student_is_built_as_the_step_says(float_model: FloatModel, digits: Dataset) -> None:
    step = Distill(student="cnn-small", channels=NARROW, dropout=0.5, epochs=1)
    student = module(distill(float_model, step, digits, teacher=float_model, context=ONE_THREAD))
    assert [layer.p for layer in student.modules() if isinstance(layer, nn.Dropout)] == [0.5]
    with pytest.raises(UsageProblem, match="`channels` and `dropout` belong to a student; name one"):
        Distill.from_options(channels=NARROW, dropout=0.0)


def test_a_pruned_model_goes_on_under_its_teacher(
    float_model: FloatModel, digits: Dataset, digits_test: Dataset
) -> None:
    steps = (Prune(ratio=0.5, epochs=0), Distill(epochs=2))
    run = RunContext(threads=1)
    bare = Recipe(name="bare", steps=steps[:1]).apply(float_model, run, digits)
    taught = Recipe(name="taught", steps=steps).apply(float_model, run, digits)
    assert module(taught)(torch.zeros(1, 1, 28, 28)).shape == (1, 10)
    shares = [accuracy(module(one), digits_test, one.preprocess) for one in (bare, taught)]
    assert shares[1] > max(shares[0], 0.9)


def test_the_divergence_is_zero_for_the_teacher_itself_and_grows_with_the_difference(
    float_model: FloatModel, digits: Dataset
) -> None:
    glyphs = digits.images[:32]
    with taught_by(float_model, temperature=3.0, soft=1.0, threads=1) as lesson:
        answers = torch.from_numpy(lesson.answers(glyphs))
        expected = torch.from_numpy(
            module(float_model)(torch.from_numpy(float_model.preprocess.apply(glyphs))).detach().numpy()
        )
        assert torch.allclose(answers, expected, atol=1e-4)
        same, near, far = (float(lesson.divergence(answers * factor, glyphs)) for factor in (1.0, 0.9, 0.1))
    assert same == pytest.approx(0, abs=1e-5)
    assert 0 < near < far


def test_gradients_keep_their_size_whatever_the_temperature() -> None:
    glyphs = np.zeros((4, 28, 28), np.uint8)
    answers = np.array([[0.02, 0, -0.02]] * 4, np.float32)
    sizes = []
    for temperature in (1.0, 4.0):
        logits = torch.zeros(4, 3, requires_grad=True)
        Lesson(lambda _: answers, temperature, 1.0).divergence(logits, glyphs).backward()
        assert logits.grad is not None
        sizes.append(float(logits.grad.norm()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.02)


def test_a_teacher_of_other_classes_is_refused_before_any_training(float_model: FloatModel, digits: Dataset) -> None:
    run = RunContext(threads=1, progress=lambda *_: pytest.fail("it trained"))
    with pytest.raises(CheckpointError, match=r"^teacher: cnn-small was trained on 47 classes, the data has 10"):
        Recipe(name="x", steps=(Distill(teacher="cnn-small"),)).apply(float_model, run, digits)


def test_a_teacher_that_cannot_be_loaded_is_answered_by_what_helps(digits: Dataset, tmp_path: Path) -> None:
    context = StepContext(RunContext(), digits, cast(FloatModel, None))
    torch.save({"weight": torch.zeros(10, 5)}, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match=r"holds only weights; .* --model .*no such option, so give the .onnx"):
        context.teacher(str(tmp_path / "weights.pt"))
    for name, message in (("none.pt", "none.pt: no such file"), (tmp_path, "is a folder, not a checkpoint")):
        with pytest.raises(CheckpointError, match=f"^teacher: .*{message}") as caught:
            context.teacher(str(name))
        assert "--model" not in str(caught.value)
    with pytest.raises(UsageProblem, match=r"^teacher: 'cnn-dep' is neither .*; did you mean cnn-deep\?$"):
        context.teacher("cnn-dep")


def test_the_command_writes_a_student_that_the_press_reads_back(glyphpress, checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "student.pt2"
    arguments = ("--data", "builtin:digits", "--channels", ",".join(map(str, NARROW)), "--epochs", "1", "-o", out)
    done = glyphpress("distill", checkpoint, *arguments)
    assert done.code == 0, done.err
    assert "% equal answers, accuracy" in done.out
    model = settle(str(out), CheckpointRequest(), None).model
    assert any("distilled cnn-small" in line for line in model.history)
    assert glyphpress("distill", checkpoint, *arguments).code == 2
    wrong = glyphpress("distill", checkpoint, *arguments[:2], "--channels", "8,8", "-o", tmp_path / "b.pt2")
    assert wrong.code == 2
    assert "four to six" in wrong.err
    assert (
        glyphpress("distill", checkpoint, *arguments[:2], "--student", "cnn-smal", "-o", tmp_path / "b.pt2").code == 2
    )


def test_norms_fold_where_nobody_else_reads_the_convolution_and_answers_stay() -> None:
    class Branching(nn.Module):
        """Asks what it sees, so that it cannot be traced."""

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image.flatten(1)[:, :10] if image.sum() > 0 else image.flatten(1)[:, 10:20]

    class Plain(nn.Module):
        """A convolution with its norm, and one whose answer is also read without it."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
            self.second, self.shared = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
            self.last = nn.Linear(4, 10)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            value = self.norm(self.first(image))
            again = self.second(value)
            return self.last((self.shared(again) + again).mean((2, 3)))

    torch.manual_seed(0)
    plain = Plain().train()
    plain(torch.rand(64, 1, 28, 28))
    model = TorchModel("plain", Preprocess(), tuple("0123456789"), "0" * 64, plain.eval())
    inside = folded(model, "the test")
    image = torch.rand(8, 1, 28, 28)
    assert torch.allclose(inside(image), plain(image), atol=1e-5)
    kinds = {name: type(part).__name__ for name, part in inside.named_modules()}
    assert (kinds["norm"], kinds["shared"]) == ("Identity", "BatchNorm2d")
    with pytest.raises(StageError, match="cannot trace it for the test"):
        folded(replace(model, module=Branching()), "the test")

"""The student that fits a number of bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from calibration.dataset import Dataset
from tests.fixtures.lazy import nn, torch
from toolchain.checkpoint.float_model import FloatModel
from toolchain.compress.student import Channels, byte_limit, ladder, weight_bytes, widest_within
from toolchain.core.context import RunContext
from toolchain.core.errors import StageError, UsageProblem
from toolchain.export import export
from toolchain.recipe import Distill, Quantize, Recipe


@pytest.mark.parametrize(
    ("text", "limit"), [("1/20", 42_734), (" 1 / 8 ", 106_835), ("16 KiB", 16_384), ("40KB", 40_000)]
)
def test_bytes_are_a_share_of_the_float_file_or_a_size(text: str, limit: int) -> None:
    assert byte_limit(text, 854_685) == limit


@pytest.mark.parametrize("text", ["", "1/1", "1/0", "2/3", "20", "0.05", "5%", "-1KB", "0KB", "1/20 KB"])
def test_bytes_that_cannot_be_meant_are_refused(text: str) -> None:
    with pytest.raises(UsageProblem, match="`bytes`: "):
        Distill.from_options(student="cnn-small", bytes=text)


def test_bytes_and_channels_exclude_each_other() -> None:
    with pytest.raises(UsageProblem, match="exclude each other"):
        Distill.from_options(student="cnn-small", bytes="1/20", channels=(8, 8, 8, 8, 8))
    with pytest.raises(UsageProblem, match="cnn-small only"):
        Distill.from_options(student="cnn-deep", bytes="1/20")


@pytest.mark.parametrize("halvings", [0, 2, 3, 4, 9])
def test_a_student_fills_its_bytes_and_never_passes_them(halvings: int) -> None:
    students = ladder(halvings)
    asked: list[Channels] = []

    def size(channels: Channels) -> int:
        asked.append(channels)
        return 2_000 + round(1.03 * weight_bytes(channels, 47))

    for limit in range(size(students[0]), size(students[-1]) + 9_999, 7_919):
        asked.clear()
        widest = widest_within(limit, students, 47, size)
        assert len(asked) <= 5
        assert size(widest) <= limit
        assert widest == students[-1] or size(students[students.index(widest) + 1]) > limit
    with pytest.raises(StageError, match="the smallest student"):
        widest_within(size(students[0]) - 1, students, 47, size)


def test_a_plan_follows_resolution_and_bytes_and_its_file_keeps_them(
    float_model: FloatModel, digits: Dataset, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    pooled = nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(392, 256), nn.Linear(256, 10)),
    )
    model = replace(float_model.with_module(pooled.eval()), name="pooled")
    whole = export(model, "onnx", tmp_path / "whole.onnx").path.stat().st_size
    recipe = Recipe(
        name="fits",
        formats=("onnx",),
        steps=(Distill(student="cnn-small", bytes="1/20"), Quantize(scheme="static-int4")),
    )
    chosen = recipe.planned(model, RunContext(threads=1), digits).shaping[0]
    assert isinstance(chosen, Distill)
    assert len(chosen.channels) == 4
    assert f"for at most {whole // 20:,} bytes, 1/20 of pooled.float.onnx" in chosen.choice
    assert "twice" in chosen.choice
    tight = recipe.model_copy(update={"steps": (Distill(student="cnn-small", bytes="1KB"), recipe.steps[1])})
    with pytest.raises(StageError, match="no student fits in 1,000 bytes"):
        tight.planned(model, RunContext(threads=1), digits)

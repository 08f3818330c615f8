"""A press trains nothing where its result could not be judged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures.lazy import torch
from toolchain import models
from toolchain.commands import press
from toolchain.training import fit

RECIPE = """
name = "taught"
[[steps]]
kind = "distill"
student = "cnn-small"
[[steps]]
kind = "quantize"
scheme = "static-int8"
"""


def test_a_student_that_lost_in_training_is_answered_by_more_training(
    glyphpress: Callable, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "fit", lambda student, *_inputs, **_settings: student.eval())
    taught = RECIPE.replace('"cnn-small"', '"cnn-small"\nbytes = "1/20"')
    (tmp_path / "taught.toml").write_text(taught)
    words = ("press", checkpoint, "--data", "builtin:digits", "--recipe", tmp_path / "taught.toml", "--format", "onnx")
    done = glyphpress(*words, "--seconds", "1ms", "--max-p95", "1s", "--out", tmp_path / "out")
    assert done.code == 1, done.err
    first, *others = done.out[done.out.index("\nnext") :].splitlines()[1:]
    assert f"glyphpress recipe show {tmp_path}/taught.toml > taught-next.toml; in it more `epochs` of distill" in first
    assert "larger `bytes` (now 1/20) or another `teacher` (now the model itself); then --recipe" in first
    assert not any(command in line for line in others for command in ("explain", "quantize "))
    assert "sidecar" not in done.out
    assert done.out.count("student: channels") == 1
    assert (tmp_path / "out" / "report.md").read_text().count("student: channels") == 1


def test_a_model_that_reads_near_chance_is_refused_before_a_recipe_trains(
    glyphpress: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(press.FileMaker, "make", lambda _maker: pytest.fail("files are made"))
    torch.manual_seed(0)
    torch.save(models.build("lenet5", classes=10).state_dict(), tmp_path / "len.pt")
    (tmp_path / "taught.toml").write_text(RECIPE)
    words = ("press", tmp_path / "len.pt", "--model", "lenet5", "--orientation", "upright", "--scale", "0-1")
    recipe = ("--data", "builtin:digits", "--recipe", tmp_path / "taught.toml", "--format", "onnx")
    done = glyphpress(*words, *recipe, "--out", tmp_path / "out")
    assert done.code == 3
    assert "the baseline len" in done.err
    assert "so nothing can be judged against it" in done.err
    assert {path.name for path in tmp_path.iterdir()} == {"len.pt", "taught.toml"}

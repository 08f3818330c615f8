"""A data folder with only a test split serves all that needs no training images (row 21)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from calibration.dataset import load
from tests.calibration.official_files import write_split

PLAIN = ("--orientation", "upright", "--scale", "0-1")


@pytest.fixture
def data(tmp_path: Path) -> str:
    test = load("builtin:digits", "test")
    write_split(tmp_path / "only", "digits", "test", test.images[:], test.labels)
    return f"{tmp_path / 'only'}:digits"


@pytest.fixture
def bare(checkpoint: Path, tmp_path: Path) -> Path:
    """Weights that do not say what their columns are."""
    import torch

    torch.save(torch.load(checkpoint, weights_only=True)["state_dict"], tmp_path / "bare.pt")
    return tmp_path / "bare.pt"


def test_row21_export_evaluate_quantize_and_press_work(glyphpress, data: str, bare: Path, tmp_path: Path) -> None:
    source = (bare, "--model", "cnn-small", "--data", data, *PLAIN)
    exported = glyphpress("export", *source, "-o", tmp_path / "f.onnx")
    assert exported.code == 0, exported.err
    assert glyphpress("evaluate", tmp_path / "f.onnx", "--data", data).code == 0
    half = ("--scheme", "float16", "-o", tmp_path / "h.onnx")
    assert glyphpress("quantize", tmp_path / "f.onnx", "--data", data, *half).code == 0
    words = ("--recipe", "float16", "--format", "onnx", "--seconds", "20ms", "--policy", "smoke", "--json")
    ran = glyphpress("press", *source, *words, "--out", tmp_path / "out")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["report"]["dataset"]["images"] == 599


@pytest.mark.parametrize("command", ["press", "quantize", "search"])
def test_row21_what_needs_training_images_says_so(
    command: str, glyphpress, data: str, bare: Path, floats, tmp_path: Path
) -> None:
    words = {
        "press": ("press", bare, "--model", "cnn-small", *PLAIN, "--format", "onnx", "--out", tmp_path / "o"),
        "quantize": ("quantize", floats["onnx"].path, "-o", tmp_path / "q.onnx"),
        "search": ("export", bare, "--model", "cnn-small", "-o", tmp_path / "e.onnx"),
    }[command]
    ran = glyphpress(*words, "--data", data)
    assert ran.code == 3, ran.out
    needed = "needs labelled training images" if command == "search" else "no emnist-digits-train-images"
    assert needed in ran.err.splitlines()[-1]

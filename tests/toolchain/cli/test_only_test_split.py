"""A data folder with only a test split serves all that needs no training images (row 21)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from calibration.load import load
from tests.fixtures.official_files import write_split

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
    needed = "needs labelled training images" if command == "search" else "where the test split is"
    assert needed in ran.err.splitlines()[-1]


STATIC = (
    "static-int8 takes its ranges from training images; take --ranges FILE of an earlier --save-ranges, or --scheme"
)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(("quantize", "F", "-o", "q.onnx"), f"{STATIC} dynamic-int8", id="row21-quantize"),
        pytest.param(("quantize", "F", "-o", "q.onnx", "--fallback", "2"), "--fallback tries", id="row21-fallback"),
        pytest.param(("sensitivity", "C"), "sensitivity needs training images", id="row21-sensitivity"),
        pytest.param(("prune", "C", "--ratio", "25%", "-o", "p.pt2"), "prune needs training", id="row21-prune"),
        pytest.param(("distill", "C", "--teacher", "C", "-o", "p.pt2"), "distill needs training", id="row21-distill"),
        pytest.param(("train", "-o", "p.pt"), "train needs training images", id="row21-train"),
        pytest.param(("explain", "F", "F"), "explain reads training images; `glyphpress compare`", id="row21-explain"),
        pytest.param(
            ("gate", "--baseline", "F", "--candidate", "F", "--policy", "strict"),
            "the policy's [leaks] needs the training images; name others with --train-data, or drop [leaks]",
            id="row21-gate",
        ),
        pytest.param(
            ("press", "C", "--recipe", "static-int8", "--out", "o"),
            "--recipe static-int8 needs them; dynamic-int8, float16, weight-int4, weight-int8 do without",
            id="row21-press",
        ),
        pytest.param(
            ("press", "C", "--recipe", "float16", "--policy", "strict", "--out", "o"),
            "the policy's [leaks] needs them; drop it, or take another --policy",
            id="row21-press-leaks",
        ),
    ],
)
def test_what_needs_training_images_says_why_and_what_works(
    words: tuple[str, ...], said: str, glyphpress, data: str, checkpoint: Path, floats, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {"F": floats["onnx"].path, "C": checkpoint}
    ran = glyphpress(*(files.get(word, word) for word in words), "--data", data)
    last = ran.err.splitlines()[-1]
    assert ran.code == 3, ran.out
    assert "no emnist-digits-train-images-idx3-ubyte[.gz], emnist-" in last
    assert "where the test split is; copy its files there, or give another folder" in last
    assert said in last


def test_row21_quantize_says_that_test_images_compare_nothing(glyphpress, data: str, floats, tmp_path: Path) -> None:
    source, made = floats["onnx"].path, tmp_path / "h.onnx"
    ran = glyphpress("quantize", source, "--data", data, "--scheme", "float16", "-o", made)
    command = f"glyphpress compare {source} {made} --data {data}"
    assert f"{data} has no train split, which the comparison uses; `{command}`" in ran.out
    assert "give --data" not in ran.out
    assert glyphpress(*command.split()[1:]).code == 0


def test_row21_a_file_without_sidecar_is_sent_to_adopt(glyphpress, data: str, floats, tmp_path: Path) -> None:
    import onnx

    proto = onnx.load(floats["onnx"].path)
    del proto.metadata_props[:]
    bare = tmp_path / "bare.onnx"
    onnx.save(proto, bare)
    words = ("quantize", bare, "--data", data, "--scheme", "float16", "-o", tmp_path / "h.onnx")
    ran = glyphpress(*words)
    assert ran.code == 3
    assert f"with a train split; options go to `glyphpress adopt {bare} --data DATA`" in ran.err
    assert glyphpress("adopt", bare, "--data", data, *PLAIN).code == 0
    assert glyphpress(*words).code == 0


def test_quantize_takes_a_folder_with_training_images_alone(glyphpress, floats, digits, tmp_path: Path) -> None:
    write_split(tmp_path / "only", "digits", "train", digits.images[:], digits.labels)
    words = ("--data", f"{tmp_path / 'only'}:digits", "-o", tmp_path / "q.onnx")
    assert glyphpress("quantize", floats["onnx"].path, *words).code == 0

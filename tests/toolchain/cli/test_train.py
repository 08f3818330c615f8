"""`glyphpress train`, as a user runs it."""

from __future__ import annotations

import csv
import json
import math
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from calibration.load import load
from tests.fixtures.lazy import torch
from tests.fixtures.official_files import write_split

RUN = (
    # A shell's background job ignores SIGINT, and so would its children.
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from toolchain.cli.main import main; main()"
)


def test_train_writes_weights_and_measures_them_once(glyphpress: Callable, tmp_path: Path) -> None:
    out = tmp_path / "model.pt"
    done = glyphpress("train", "--data", "builtin:digits", "-o", out, "--epochs", 2)
    assert done.code == 0, done.err
    assert "epoch 2/2" in done.err
    assert "test accuracy" in done.out
    assert "95 % interval" in done.out
    assert torch.load(out, weights_only=True)["settings"]["epochs"] == 2


def test_the_log_and_the_curve_hold_every_epoch(glyphpress: Callable, tmp_path: Path) -> None:
    out, log, curve = tmp_path / "m.pt", tmp_path / "m.csv", tmp_path / "m.svg"
    words = ("train", "--data", "builtin:digits[0-2]", "--epochs", 3, "--log", log, "--curve", curve)
    done = glyphpress(*words, "-o", out, "--json")
    assert done.code == 0, done.err
    epochs = json.loads(done.out)["epochs"]
    rows = list(csv.DictReader(log.open()))
    assert [{name: float(value) for name, value in row.items()} for row in rows] == epochs
    texts = [element.text for element in ElementTree.parse(curve).iter() if element.text and element.text.strip()]
    assert "cnn-small on builtin:digits[0-2]/train" in texts
    assert f"training {epochs[-1]['loss']:.3g}" in texts
    assert f"held out {epochs[-1]['held_out_accuracy']:.1%}" in texts
    again = glyphpress(*words, "-o", tmp_path / "other.pt")
    assert (again.code, "m.csv is already there" in again.err) == (2, True)
    assert not (tmp_path / "other.pt").exists()


@pytest.mark.parametrize("form", ["row21-official", "row21-pictures"])
def test_without_a_test_split_a_fifth_is_held_out_and_that_is_said(
    form: str, glyphpress: Callable, tmp_path: Path
) -> None:
    images = load("builtin:digits", "train")
    chosen = np.concatenate([np.flatnonzero(images.labels == label)[:20] for label in range(10)])
    if form == "row21-official":
        write_split(tmp_path / "only", "digits", "train", images.images[chosen], images.labels[chosen])
    for place in chosen if form == "row21-pictures" else ():
        folder = tmp_path / "only" / "train" / images.classes[images.labels[place]]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images.images[place]).save(folder / f"{place}.png")
    spec = f"{tmp_path / 'only'}:digits" if form == "row21-official" else tmp_path / "only"
    done = glyphpress("train", "--data", spec, "-o", tmp_path / "m.pt", "--epochs", 1)
    assert done.code == 0, done.err
    assert "has no test split, so a fifth of each class of the train split is held out to test" in done.err
    facts = torch.load(tmp_path / "m.pt", weights_only=True)
    assert (facts["data"]["images"], facts["test"]["images"]) == (160, 40)
    assert "test accuracy" in done.out


@pytest.mark.parametrize(
    "words",
    [
        ("train", "--lr", "nan"),
        ("train", "--lr", "1e99"),
        ("train", "--lr", "0"),
        ("train", "--batch", "1"),
        ("distill", "cnn-small", "--dropout", "nan"),
        ("distill", "cnn-small", "--augment", "nan"),
        ("distill", "cnn-small", "--temperature", "inf"),
        ("prune", "cnn-small", "--temperature", "nan"),
        ("prune", "cnn-small", "--std", "0"),
        ("press", "cnn-small", "--mean", "nan"),
        ("quantize", "cnn.onnx", "--percentile", "nan"),
    ],
    ids=" ".join,
)
def test_a_number_that_cannot_be_meant_is_refused_before_anything_runs(
    words: tuple[str, ...], glyphpress: Callable, tmp_path: Path
) -> None:
    done = glyphpress(*words, "--data", "builtin:digits", "--out" if words[0] == "press" else "-o", tmp_path / "m.pt2")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert words[-2] in done.err
    assert not list(tmp_path.iterdir())


def test_json_is_one_object_and_nothing_else(glyphpress: Callable, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    done = glyphpress("train", "--data", "builtin:digits", "-o", out, "--epochs", 1, "--seed", 5, "--json")
    shown = json.loads(done.out)
    assert shown["schema"] == "glyphpress/train/1"
    assert shown["seed"] == 5
    assert shown["out"] == str(out)
    assert shown["test"]["accuracy"] == shown["test"]["right"] / shown["test"]["images"]
    assert len(shown["epochs"]) == 1
    assert out.is_file()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--model", "cnn-smal"], 2, "did you mean cnn-small"),
        (["--preset", "digit"], 2, "did you mean digits"),
        (["--epochs", "0"], 2, "0 is not in the range"),
        (["-o", "model.onnx"], 2, ".safetensors"),
        (["-o", "/dev/null/model.pt"], 2, "/dev/null is not a folder"),
    ],
    ids=["model", "preset", "epochs", "suffix", "place"],
)
def test_bad_words_get_one_line(
    glyphpress: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    words: list[str],
    code: int,
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = glyphpress("train", "--data", "builtin:digits", "-o", "model.pt", *words)
    assert done.code == code
    assert told in done.err
    assert done.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_diverging_training_gets_one_line_and_leaves_nothing(
    glyphpress: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No rate that may be given is so large that it does so for certain.
    losses = iter((2.0, math.inf))
    monkeypatch.setattr("toolchain.training.fit._Loop.step", lambda _loop, _places: next(losses))
    done = glyphpress("train", "--data", "builtin:digits", "-o", tmp_path / "m.pt", "--epochs", 3)
    assert done.code == 3
    told = [line for line in done.err.splitlines() if line.startswith("glyphpress:")]
    assert len(told) == 1
    assert "lower the learning rate" in told[0]
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_ctrl_c_leaves_the_last_finished_epoch(tmp_path: Path) -> None:
    out = tmp_path / "model.pt"
    words = [sys.executable, "-c", RUN, "train", "--data", "builtin:digits", "-o", str(out), "--epochs", "500"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as run:
        try:
            assert any(line.startswith("epoch 2/") for line in run.stderr)
            run.send_signal(signal.SIGINT)
            _, err = run.communicate(timeout=120)
        finally:
            run.kill()
    assert run.returncode == 130
    told = [line for line in err.splitlines() if line.startswith("glyphpress:")]
    content = torch.load(out, weights_only=True)
    assert content["epoch"] >= 2
    holds = f"{out} holds epoch {content['epoch']} of 500"
    assert told == [f"glyphpress: interrupted; {holds}; the same command with --resume continues"]
    assert "Traceback" not in err
    assert set(tmp_path.iterdir()) == {out, tmp_path / "model.pt.resume"}


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Files end at 50 KB, which fails at the same call as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_gets_one_line_and_no_half_file(glyphpress: Callable, tmp_path: Path) -> None:
    done = glyphpress("train", "--data", "builtin:digits", "-o", tmp_path / "model.pt", "--epochs", 1)
    assert done.code == 3
    told = [line for line in done.err.splitlines() if line.startswith("glyphpress:")]
    assert len(told) == 1
    assert f"{tmp_path / 'model.pt'} could not be written (File too large); free 852 KB" in told[0]
    assert not list(tmp_path.iterdir())


def test_folds_measure_without_writing_and_with_an_output_the_model_is_fitted_to_all(
    glyphpress: Callable, tmp_path: Path
) -> None:
    folds = ("train", "--data", "builtin:digits", "--classes", "0,1,2", "--folds", 3, "--epochs", 1)
    done = glyphpress(*folds)
    assert done.code == 0, done.err
    assert "no file was written" in done.out
    assert "standard deviation" in done.out
    shown = json.loads(glyphpress(*folds, "--json").out)
    assert shown["schema"] == "glyphpress/folds/1"
    assert sum(fold["images"] for fold in shown["folds"]) == shown["data"]["images"]
    assert f"mean {shown['mean']:.2%}".replace("%", " %") in done.out

    both = json.loads(glyphpress(*folds, "-o", tmp_path / "m.pt", "--json").out)
    assert both["schema"] == "glyphpress/train/1"
    assert both["cross_validation"]["mean"] == shown["mean"]
    assert both["data"]["images"] == shown["data"]["images"]
    assert both["test"]["images"] > 0
    assert (tmp_path / "m.pt").is_file()


def test_a_training_starts_from_a_checkpoint_and_says_so(glyphpress: Callable, tmp_path: Path) -> None:
    data = ("--data", "builtin:digits[1,0]", "--epochs", 1)
    done = glyphpress("train", "--from", "cnn-small", "--freeze", *data, "-o", tmp_path / "m.pt")
    assert done.code == 0, done.err
    assert "new head classifier: 2 classes for the checkpoint's 47; 2 start from those of the same name" in done.err
    facts = torch.load(tmp_path / "m.pt", weights_only=True)
    assert facts["start"]["file"] == "cnn-small"
    assert facts["test"]["accuracy"] > 0.98

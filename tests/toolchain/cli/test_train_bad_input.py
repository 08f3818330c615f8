"""A training that cannot be meant, or cannot go on: one line with advice, the exit code of its family, no half file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calibration.dataset import Dataset
from calibration.errors import EmptyData
from calibration.load import load
from tests.fixtures.lazy import torch
from toolchain import models
from toolchain.core.context import RunContext
from toolchain.models.saving import save
from toolchain.training.train import train

DIGITS = "builtin:digits"


def write_pictures(folder: Path, counts: dict[str, int]) -> None:
    """Write so many pictures of each digit, in a folder a class."""
    digits = load(DIGITS, "train")
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for index in np.flatnonzero(digits.labels == int(name))[:count]:
            Image.fromarray(digits.images[index]).save(folder / name / f"{index}.png")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with bad data sets and checkpoints, in which the command runs."""
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "one-class", {"3": 9})
    write_pictures(tmp_path / "one-image", {"0": 1, "1": 1})
    write_pictures(tmp_path / "rare", {"0": 9, "1": 4})
    write_pictures(tmp_path / "other" / "train", {"0": 9, "1": 9})
    write_pictures(tmp_path / "other" / "test", {"0": 9, "2": 9})
    (tmp_path / "folder.pt").mkdir()
    facts = {"model": "cnn-small", "classes": list("0123456789"), "preprocess": {"scale": "0-1"}}
    save(tmp_path / "start.pt", models.build("cnn-small", 10), facts)
    torch.save({"weight": torch.zeros(10, 5)}, tmp_path / "foreign.pt")
    (tmp_path / "bad.toml").write_text("[train]\nschedule = 'cosin'\n")
    return tmp_path


CASES: dict[str, tuple[tuple[str, ...], int, str]] = {
    "one class": (("--data", "one-class"), 3, "holds a single class, '3'; two or more are needed"),
    "one image a class, nothing to test": (("--data", "one-image"), 3, "cannot be split into train and test; add some"),
    "test split of other classes": (("--data", "other"), 3, "classes 1, 2 are not in both train/ and test/"),
    "class that the data does not have": (("--classes", "0,x"), 2, "'x'"),
    "first class in a column that a new model lacks": (
        ("--label-offset", "1"),
        2,
        "--label-offset 1 is for a checkpoint that has columns before its first class; a new model has none",
    ),
    "batch larger than the set": (
        ("--batch", "1079"),
        2,
        "--batch 1079 is more than the 1078 images to fit",
    ),
    "batch of a preset": (("--preset", "emnist", "--classes", "0,1"), 2, "--batch 256 is more than the 236 images"),
    "unknown schedule": (("--schedule", "cosin"), 2, "cosine"),
    "unknown schedule in a file": (("--config", "bad.toml"), 2, "bad.toml"),
    "NaN": (("--lr", "nan"), 2, "'nan' is not a number"),
    "huge epochs": (("--epochs", "100000000"), 2, "is not in the range; give a whole number from 1 to 100,000"),
    "too few images for the folds": (
        ("--data", "rare", "--folds", "5"),
        2,
        "5 folds need 5 different images of each class, and class '1' has 3; give --folds 3 or fewer",
    ),
    "one fold": (("--folds", "1"), 2, "1 is not in the range; give a whole number from 2 to 1,000"),
    "output in a file": (("-o", "start.pt/m.pt"), 2, "is not a folder that can be written to"),
    "output is a folder": (("-o", "folder.pt", "--force"), 2, "is a directory"),
    "output is there": (("-o", "start.pt"), 2, "--force to overwrite it"),
    "output is the start": (("-o", "start.pt", "--from", "start.pt", "--force"), 2, "give another name"),
    "start that is missing": (("--from", "no.pt"), 3, "no.pt: no such file"),
    "start of another architecture": (("--from", "start.pt", "--model", "cnn-deep"), 3, "leave --model out"),
    "start of other shapes": (
        ("--from", "foreign.pt", "--model", "cnn-small"),
        3,
        "foreign.pt is not a checkpoint of CnnSmall",
    ),
    "start without a class": (("--from", "foreign.pt"), 3, "name the model's class with --model"),
    "other classes than the start's": (("--from", "start.pt", "--from-classes", "abc"), 3, "trained on 10 classes"),
    "unknown layer": (("--from", "start.pt", "--freeze-until", "features.norm9"), 2, "did you mean features.norm"),
    "nothing to train": (("--from", "start.pt", "--freeze-until", "classifier"), 2, "leaves no weights to train"),
    "frozen for longer than it trains": (
        ("--from", "start.pt", "--freeze", "--freeze-epochs", "3", "--epochs", "3"),
        2,
        "--freeze-epochs 3 is the whole training of 3 epochs",
    ),
    "freeze without a start": (("--freeze",), 2, "--freeze belongs to --from"),
    "weights without a start": (("--weights", "ema"), 2, "--weights belongs to --from"),
    "two ways to freeze": (("--from", "start.pt", "--freeze", "--freeze-until", "flatten"), 2, "give one of them"),
    "freeze for how long but not what": (("--from", "start.pt", "--freeze-epochs", "2"), 2, "give --freeze or"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_meant_gets_one_line(case: str, glyphpress: Callable, here: Path) -> None:
    arguments, code, message = CASES[case]
    before = {path: path.stat().st_mtime_ns for path in here.rglob("*")}
    data = () if "--data" in arguments else ("--data", DIGITS)
    output = () if "-o" in arguments else ("-o", "new.pt")
    done = glyphpress("train", *data, *output, *arguments)
    errors = [line for line in done.err.splitlines() if line.startswith("glyphpress: ")]
    assert (done.code, done.out, len(errors)) == (code, "", 1), done.err
    assert errors == done.err.splitlines()[-1:]
    assert message in errors[0]
    assert {path: path.stat().st_mtime_ns for path in here.rglob("*")} == before


def test_a_class_without_images_is_refused(digits: Dataset) -> None:
    more = replace(digits, classes=(*digits.classes, "x", "y"))
    with pytest.raises(EmptyData, match="has no image of class 'x', 'y'; add some, or choose the other classes"):
        train(more, context=RunContext())


def test_only_folds_run_without_an_output(glyphpress: Callable) -> None:
    done = glyphpress("train", "--data", DIGITS)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "Missing option '-o', the file to write; only --folds runs without it" in done.err


def test_a_class_with_one_image_is_fitted_and_that_is_said(glyphpress: Callable, tmp_path: Path) -> None:
    write_pictures(tmp_path / "data" / "train", {"0": 9, "1": 1})
    write_pictures(tmp_path / "data" / "test", {"0": 2, "1": 2})
    done = glyphpress("train", "--data", tmp_path / "data", "-o", tmp_path / "m.pt", "--epochs", 1)
    assert done.code == 0, done.err
    assert "(1 held out, none of '1': a single different image is fitted)" in done.err


LIMITED = """
import resource, sys, torch
from toolchain.cli.main import main
import toolchain.training.train
used = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), -1))
main()
"""


@pytest.mark.slow
def test_a_batch_that_needs_more_memory_than_there_is_gets_one_line(tmp_path: Path) -> None:
    arguments = ["train", "--data", DIGITS, "--batch", "1078", "--model", "cnn-deep", "-o", str(tmp_path / "m.pt")]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *arguments, "--threads", "1"], capture_output=True, text=True, check=False
    )
    errors = [line for line in done.stderr.splitlines() if "glyphpress: " in line]
    assert (done.returncode, len(errors)) == (3, 1), done.stderr
    assert "not enough memory" in errors[0]
    assert "use a smaller batch" in errors[0]
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())

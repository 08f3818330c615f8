"""Leaks: planted ones are found, in training and in calibration; honest files pass; what cannot be told never does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calibration.dataset import Dataset
from calibration.load import load
from calibration.sample import draw
from targets import catalog
from targets.artifact import Artifact
from targets.metadata import adopt, load_artifact
from targets.preprocess import Preprocess
from tests.fixtures.small_readers import DIGITS, digits, linear_reader
from toolchain.core.errors import EvidenceError
from toolchain.core.json_codec import from_json, to_json
from toolchain.evaluation.evaluate import Evaluation, evaluate
from toolchain.gate.limits.leaks import LISTED, Leaks, LeaksLimit, find_leaks, judge_leaks
from toolchain.quantize import quantize
from toolchain.recipe import Quantize
from toolchain.stats.decision import Outcome

NONE = LeaksLimit()
LEAKED = [0, 5, 77, 100, 359]


@pytest.fixture(scope="module")
def train() -> Dataset:
    return load("builtin:digits", "train")


@pytest.fixture(scope="module")
def leaky(train: Dataset) -> Dataset:
    """The train split with five test images in it, one of them twice."""
    copies = [*LEAKED, 5]
    images = np.concatenate([digits().images[copies], train.images])
    labels = np.concatenate([digits().labels[copies], train.labels])
    return Dataset.of(images, labels, train.classes, "leaky/train", "train")


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return load_artifact(linear_reader(tmp_path_factory.mktemp("float") / "reader.onnx"))


def calibrated(reader: Artifact, path: Path, train: Dataset, size: int, exclude: Dataset | None) -> Artifact:
    """The reader as static int8, its ranges from `size` drawn images."""
    step = Quantize.model_validate({"scheme": "static-int8"})
    return quantize(reader, step, draw(train, size, seed=3, exclude=exclude), path, recipe="static-int8")


def evaluated(artifact: Artifact, dataset: Dataset) -> Evaluation:
    with catalog.default_for(artifact.format).open(artifact) as session:
        return evaluate(session, dataset)


def stored(leaks: Leaks) -> Leaks:
    return from_json(Leaks, json.dumps(to_json(leaks)))


def test_an_honest_file_has_no_leaks(reader: Artifact, train: Dataset, tmp_path: Path) -> None:
    pressed = calibrated(reader, tmp_path / "int8.onnx", train, 100, digits())
    for artifact in (reader, pressed):
        leaks = find_leaks(evaluated(artifact, digits()), train, artifact)
        assert leaks == Leaks(digits().origin, train.origin, len(digits()), 0, 0, 0)
        assert judge_leaks(NONE, stored(leaks)).outcome is Outcome.PASS


def test_test_images_in_the_train_split_are_found(reader: Artifact, leaky: Dataset) -> None:
    leaks = find_leaks(evaluated(reader, digits()), leaky, reader)
    assert (leaks.training, leaks.calibration, leaks.first) == (5, 0, tuple(LEAKED))
    verdict = judge_leaks(NONE, stored(leaks))
    assert (verdict.outcome, verdict.measured) == (Outcome.FAIL, 5)
    assert "5 of 599 test images were seen before, 5 in leaky/train" in verdict.reason
    assert "images 0, 5, 77, 100, 359 of builtin:digits/test" in verdict.reason
    assert judge_leaks(LeaksLimit(max=5), leaks).outcome is Outcome.PASS


def test_test_images_that_calibrated_the_file_are_found(reader: Artifact, leaky: Dataset, tmp_path: Path) -> None:
    everything = len(np.unique(leaky.images.reshape(len(leaky), -1), axis=0))
    pressed = calibrated(reader, tmp_path / "int8.onnx", leaky, everything, None)
    leaks = find_leaks(evaluated(pressed, digits()), leaky, pressed)
    assert (leaks.training, leaks.calibration, leaks.seen) == (5, 5, 5)
    assert "5 in leaky/train and 5 in the calibration set" in judge_leaks(NONE, leaks).reason


def test_a_calibration_set_drawn_around_the_test_images_is_clean(
    reader: Artifact, leaky: Dataset, tmp_path: Path
) -> None:
    pressed = calibrated(reader, tmp_path / "int8.onnx", leaky, 200, digits())
    leaks = find_leaks(evaluated(pressed, digits()), leaky, pressed)
    assert (leaks.training, leaks.calibration, leaks.seen) == (5, 0, 5)


def test_copies_of_pictures_are_found(reader: Artifact, train: Dataset, tmp_path: Path) -> None:
    for part, first in (("train", 0), ("test", 3)):
        for label in range(10):
            folder = tmp_path / "pictures" / part / DIGITS[label]
            folder.mkdir(parents=True)
            # The train folder's fourth picture of each class is the test folder's first.
            for k in np.flatnonzero(train.labels == label)[first : first + 4]:
                Image.fromarray(255 - train.images[k]).resize((56, 56)).save(folder / f"{part}{k}.png")
    parts = {part: load(str(tmp_path / "pictures"), part) for part in ("train", "test")}
    leaks = find_leaks(evaluated(reader, parts["test"]), parts["train"], reader)
    assert (leaks.images, leaks.training) == (40, 10)
    assert judge_leaks(NONE, leaks).outcome is Outcome.FAIL


def test_many_leaks_keep_their_number(reader: Artifact) -> None:
    leaks = find_leaks(evaluated(reader, digits()), digits(), reader)
    assert (leaks.training, leaks.first) == (599, tuple(range(LISTED)))
    assert "and 579 more" in judge_leaks(NONE, stored(leaks)).reason


def test_what_calibrated_a_file_must_be_known(reader: Artifact, train: Dataset, leaky: Dataset, tmp_path: Path) -> None:
    pressed = calibrated(reader, tmp_path / "int8.onnx", train, 100, digits())
    own = evaluated(pressed, digits())
    half = train.take(np.arange(0, len(train), 2), "half")
    with pytest.raises(EvidenceError, match=r"cannot tell.*100 images of builtin:digits/train, seed 3.*--train-data"):
        find_leaks(own, half, pressed)
    with pytest.raises(EvidenceError, match="cannot tell which images calibrated"):
        find_leaks(own, digits(), pressed)
    unreadable = replace(pressed, calibration={"images": 100, "seed": None, "sha256": ""})
    with pytest.raises(EvidenceError, match="sidecar's calibration cannot be read"):
        find_leaks(own, train, unreadable)
    with pytest.raises(EvidenceError, match="not the file that was evaluated"):
        find_leaks(own, train, reader)


def test_nothing_says_what_calibrated_a_file_from_elsewhere(reader: Artifact, train: Dataset) -> None:
    foreign = adopt(reader.path, preprocess=Preprocess(), classes=DIGITS)
    with pytest.raises(EvidenceError, match=r"nothing says which images calibrated reader.onnx"):
        find_leaks(evaluated(foreign, digits()), train, foreign)


@pytest.mark.parametrize(
    "change",
    [
        {"images": 0},
        {"training": -1},
        {"training": 3},
        {"calibration": 3},
        {"seen": 0},
        {"seen": 5},
        {"first": [1]},
        {"first": None},
        {"images": 10.0},
        {"calibration": True, "training": 1, "seen": 1, "first": [1]},
        {"train": None},
        {"more": 1},
    ],
    ids=str,
)
def test_counts_that_cannot_be_are_refused(change: dict[str, object]) -> None:
    honest = Leaks("a/test", "a/train", 10, 2, 2, 2, (1, 4))
    assert stored(honest) == honest
    with pytest.raises(ValueError, match=f"{next(iter(change))}|gather the evidence again"):
        from_json(Leaks, json.dumps(to_json(honest) | change))

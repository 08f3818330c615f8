"""Cross-validation: every image is held out once, each class evenly, and copies of an image never on both sides."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.dataset import Dataset
from calibration.load import load
from toolchain.core.context import RunContext
from toolchain.core.errors import StageError, UsageProblem
from toolchain.training import fit
from toolchain.training.folds import assign_folds, cross_validate
from toolchain.training.settings import TrainSettings
from toolchain.training.train import TrainResult, train


def pictures(count: int) -> np.ndarray:
    """Different images, each with its number in its first pixels."""
    images = np.zeros((count, 28, 28), np.uint8)
    images[:, 0, :2] = np.arange(count, dtype=">u2").view(np.uint8).reshape(count, 2)
    return images


@given(counts=st.lists(st.integers(5, 40), min_size=2, max_size=6), folds=st.integers(2, 5), seed=st.integers(0, 99))
def test_each_class_and_the_whole_are_spread_evenly(counts: list[int], folds: int, seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    assigned = assign_folds(pictures(len(labels)), labels, tuple("abcdef"[: len(counts)]), folds, seed)
    for part in (*(assigned[labels == label] for label in range(len(counts))), assigned):
        sizes = np.bincount(part, minlength=folds)
        assert len(sizes) == folds
        assert sizes.max() - sizes.min() <= 1


def test_another_seed_gives_other_folds_and_the_same_seed_the_same() -> None:
    images, labels = pictures(60), np.arange(60) % 3
    first, again, other = (assign_folds(images, labels, ("a", "b", "c"), 4, seed) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_copies_of_an_image_share_a_fold_whatever_their_label() -> None:
    images, labels = pictures(40), np.arange(40) % 2
    images[:6] = images[20]
    assigned = assign_folds(images, labels, ("a", "b"), 4, seed=0)
    assert len(set(assigned[[0, 1, 2, 3, 4, 5, 20]])) == 1


@pytest.mark.parametrize(
    ("folds", "counts", "message"),
    [
        (1, (9, 9), "1 folds are not possible.*give 2 or more"),
        (5, (9, 4), "5 folds need 5 different images of each class, and class 'b' has 4; give --folds 4 or fewer"),
        (2, (9, 1), "class 'b' has 1; add images of it, or leave it out with --classes"),
        (2, (9, 0), "class 'b' has 0; add images of it"),
    ],
)
def test_folds_without_enough_images_are_refused(folds: int, counts: tuple[int, int], message: str) -> None:
    labels = np.repeat([0, 1], counts)
    with pytest.raises(UsageProblem, match=message):
        assign_folds(pictures(len(labels)), labels, ("a", "b"), folds, seed=0)


@pytest.fixture(scope="module")
def few() -> Dataset:
    return load("builtin:digits", "train").take(np.arange(240), "few")


def test_every_image_is_measured_once_by_a_fit_that_never_saw_it(few: Dataset) -> None:
    settings = TrainSettings(epochs=1, batch=16, lr=3e-3, ema=0.9, held_out=0)
    progress: list[tuple[int, int]] = []
    held: list[set[bytes]] = []

    def train_fold(fitted: Dataset, held_out: Dataset, context: RunContext) -> TrainResult:
        held.append({image.tobytes() for image in held_out.images})
        assert not held[-1] & {image.tobytes() for image in fitted.images}
        return train(fitted, settings=settings, test=held_out, context=context)

    context = RunContext(threads=1, progress=lambda _label, done, total: progress.append((done, total)))
    result = cross_validate(few, 3, train_fold, context=context)
    assert set.union(*held) == {image.tobytes() for image in few.images}
    assert sum(fold.images for fold in result.folds) == len(few)
    assert len({fold.seed for fold in result.folds}) == 3
    accuracies = [fold.right / fold.images for fold in result.folds]
    assert result.mean == pytest.approx(np.mean(accuracies))
    assert result.deviation == pytest.approx(np.std(accuracies, ddof=1))
    assert result.spread == (min(accuracies), max(accuracies))
    assert progress == sorted(progress)
    assert progress[-1][0] == progress[-1][1]


@pytest.mark.parametrize("error", [KeyboardInterrupt("interrupted"), StageError("the loss is nan")], ids=repr)
def test_a_fit_that_ends_early_names_its_fold(error: BaseException, few: Dataset) -> None:
    fits: list[Any] = []

    def train_fold(*_arguments: object) -> TrainResult:
        fits.append(None)
        if len(fits) == 2:
            raise error
        return cast(TrainResult, SimpleNamespace(facts={"test": {"right": 1}}, epochs=[SimpleNamespace(seconds=1.0)]))

    with pytest.raises(type(error), match="fold 2 of 3"):
        cross_validate(few, 3, train_fold, context=RunContext())


def folds_of(validation: dict) -> list[dict]:
    """Return the folds without the time that they took."""
    return [{name: value for name, value in fold.items() if name != "seconds"} for fold in validation["folds"]]


def test_an_unfinished_cross_validation_continues_with_the_fold_and_to_the_bit(
    glyphpress: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("toolchain.training.fit.SAVE_SECONDS", 0.0)
    words = ("train", "--data", "builtin:digits[0,1]", "--threads", 1, "--batch", 32, "--epochs", 1)
    folds, out = (*words, "--folds", 2, "--json"), tmp_path / "model.pt"
    steps: list[None] = []

    def ended_at(number: int, *command: object) -> None:
        def step(loop: fit._Loop, indices: np.ndarray) -> float:
            steps.append(None)
            if len(steps) == number:
                raise KeyboardInterrupt
            return real(loop, indices)

        steps.clear()
        with monkeypatch.context() as patch:
            real = fit._Loop.step
            patch.setattr("toolchain.training.fit._Loop.step", step)
            assert glyphpress(*command).code == 130

    whole = glyphpress(*folds, "-o", tmp_path / "whole.pt")
    assert whole.code == 0, whole.err
    expected = folds_of(json.loads(whole.out)["cross_validation"])

    # 3 steps each of the folds, then 7 of the model.
    ended_at(5, *folds)
    (state,) = (tmp_path / "cache").rglob("*.resume")
    refused = glyphpress(*folds)
    assert refused.code == 2
    assert f"{state} is left of an unfinished run; add --resume" in refused.err
    alone = glyphpress(*folds, "--resume")
    assert alone.code == 0, alone.err
    assert f"{state}: continues in epoch 1" in alone.err
    assert folds_of(json.loads(alone.out)) == expected
    assert not state.exists()

    ended_at(9, *folds, "-o", out)
    other = glyphpress(*words, "-o", out, "--resume")
    assert other.code == 2
    assert "is of another training (folds 2 there, not set here)" in other.err
    both = glyphpress(*folds, "-o", out, "--resume")
    assert both.code == 0, both.err
    # The folds were done, so only the model is fitted.
    assert both.err.count("epoch 1/1") == 1
    assert folds_of(json.loads(both.out)["cross_validation"]) == expected
    assert out.read_bytes() == (tmp_path / "whole.pt").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "model.pt", "whole.pt"}

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibration.dataset import Dataset
from calibration.load import load
from calibration.orientation import TURNS, UNDONE_BY, orientation
from targets.preprocess import ORIENTATIONS, Preprocess
from tests.fixtures.official_files import strokes


def turned(data: Dataset, name: str) -> Dataset:
    return Dataset.of(TURNS[name](data.images), data.labels, data.classes, data.origin, data.split)


def test_names_mean_what_preprocess_means() -> None:
    images = strokes(2)
    assert tuple(TURNS) == ORIENTATIONS
    for name in ORIENTATIONS:
        assert np.array_equal(TURNS[name](images), Preprocess(orientation=name, scale="0-255").apply(images)[:, 0])
        assert np.array_equal(TURNS[UNDONE_BY.get(name, name)](TURNS[name](images)), images)


@pytest.mark.slow
@pytest.mark.parametrize("split", ["balanced", "digits", "letters", "byclass"])
def test_every_turn_of_real_images_is_told(split: str, emnist_root: Path) -> None:
    data = load(f"emnist:{split}", "test", emnist_root)
    some = data.take(np.random.default_rng(1).permutation(len(data))[:4000], "some")
    for name in TURNS:
        result = orientation(turned(some, name))
        assert result is not None
        assert (result.looks, result.sure) == (name, True), str(result)


def test_real_letters_without_any_digit(emnist_root: Path) -> None:
    """The reference of letters is printed, so this shows that print tells how handwriting stands."""
    data = load("emnist:byclass", "test", emnist_root)
    letters = data.take(np.flatnonzero(data.labels >= 10)[:5000], "letters")
    result = orientation(turned(letters, "transpose"))
    assert result is not None
    assert result.looks == "transpose"
    assert result.votes["transpose"] > 2 * sorted(result.votes.values())[-2]


def test_few_images_are_not_enough_to_be_sure() -> None:
    data = load("builtin:digits")
    result = orientation(data.take(np.array([0, 1, 2]), "three"))
    assert result is not None
    assert not result.sure
    assert result.images == 3


def test_noise_is_undecided() -> None:
    digits = load("builtin:digits")
    noise = Dataset.of(strokes(len(digits)), digits.labels, digits.classes, "noise", "test")
    result = orientation(noise)
    assert result is not None
    assert not result.sure


def test_classes_that_are_no_characters_cannot_be_compared() -> None:
    digits = load("builtin:digits")
    names = tuple(f"form {name}" for name in digits.classes)
    assert orientation(Dataset.of(digits.images, digits.labels, names, "x", "test")) is None


def test_it_is_said_in_a_line() -> None:
    result = orientation(turned(load("builtin:digits"), "transpose"))
    assert str(result).startswith("transpose by 100% of the votes, next ")
    assert "over 99.9% sure" in str(result)

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.dataset import Dataset
from calibration.errors import EmptyData, TestLeak, UnknownData
from calibration.load import load
from calibration.sample import draw, image_hashes
from tests.fixtures.official_files import strokes

CLASSES = tuple("abc")


def dataset(counts: tuple[int, ...], split: str = "train") -> Dataset:
    labels = np.repeat(np.arange(len(counts)), counts)
    return Dataset.of(strokes(len(labels)), labels, CLASSES, f"x/{split}", split)  # type: ignore[arg-type]


@given(st.lists(st.integers(1, 12), min_size=3, max_size=3), st.integers(3, 36), st.integers(0, 5))
def test_classes_are_as_even_as_they_can_be(counts: list[int], size: int, seed: int) -> None:
    size = min(size, sum(counts))
    train = dataset(tuple(counts))
    drawn = draw(train, size, seed)
    assert len(drawn.images) == len(set(drawn.indices.tolist())) == size
    assert np.array_equal(drawn.images, train.images[drawn.indices])
    got = np.bincount(train.labels[drawn.indices], minlength=3)
    for one in range(3):
        # A class may lag behind another by more than one only when it is used up.
        assert got[one] == counts[one] or got[one] >= got.max() - 1


def test_seed_decides() -> None:
    train = dataset((30, 30, 30))
    assert draw(train, 12, 1).sha256 == draw(train, 12, 1).sha256
    assert draw(train, 12, 1).sha256 != draw(train, 12, 2).sha256


def test_first_images_are_a_mixture_of_classes() -> None:
    train = dataset((40, 40, 40))
    assert len(set(train.labels[draw(train, 60).indices[:12]].tolist())) == 3


def test_images_of_the_test_split_are_passed_over() -> None:
    train = dataset((10, 10, 10))
    test = Dataset.of(train.images[5:25], train.labels[5:25], CLASSES, "x/test", "test")
    drawn = draw(train, 10, 0, exclude=test)
    assert sorted(drawn.indices.tolist()) == [0, 1, 2, 3, 4, 25, 26, 27, 28, 29]
    with pytest.raises(EmptyData, match="has 10 different images outside the test split, fewer than the 11"):
        draw(train, 11, 0, exclude=test)
    all_of_them = draw(train, 11, 0, exclude=test, at_most=True)
    assert sorted(all_of_them.indices.tolist()) == sorted(drawn.indices.tolist())
    assert all_of_them.note.startswith("calibrated on 10 images, not 11: x/train has no more")
    assert drawn.note == ""


def test_copies_are_drawn_once() -> None:
    one = dataset((2, 2, 2))
    twice = Dataset.of(np.concatenate([one.images] * 2), np.concatenate([one.labels] * 2), CLASSES, "x", "train")
    assert len(set(image_hashes(draw(twice, 6).images))) == 6
    with pytest.raises(EmptyData):
        draw(twice, 7)


def test_test_split_is_refused() -> None:
    with pytest.raises(TestLeak, match="x/test is a test split"):
        draw(dataset((5, 5, 5), "test"), 3)


@pytest.mark.parametrize("size", [0, 2])
def test_fewer_images_than_classes_are_no_set(size: int) -> None:
    with pytest.raises(
        UnknownData, match=f"{size} images leave out some of the 3 classes of x/train; a calibration set needs 3"
    ):
        draw(dataset((5, 5, 5)), size)


def test_facts_name_the_set() -> None:
    facts = draw(dataset((5, 5, 5)), 6, 4).facts()
    assert facts == {"origin": "x/train", "images": 6, "seed": 4, "sha256": facts["sha256"]}
    assert len(facts["sha256"]) == 64


def test_hash_is_of_the_pixels_whatever_their_layout() -> None:
    images = strokes(6)
    turned = np.ascontiguousarray(images.swapaxes(1, 2)).swapaxes(1, 2)
    assert np.array_equal(image_hashes(turned), image_hashes(images))
    assert len(set(image_hashes(images))) == 6
    assert len(image_hashes(images[:0])) == 0


def test_byclass_is_hashed_in_a_second(emnist_root: Path) -> None:
    data = load("emnist:byclass", "test", emnist_root)
    start = time.process_time()
    assert len(image_hashes(data.images)) == 116_323
    assert time.process_time() - start < 1.5


def test_real_resplit_shares_nothing(emnist_root: Path) -> None:
    train, test = (load("emnist:balanced", split, emnist_root) for split in ("train", "test"))  # type: ignore[arg-type]
    drawn = draw(train, 512, 0, exclude=test)
    assert set(np.bincount(train.labels[drawn.indices])) == {10, 11}
    assert not np.isin(image_hashes(drawn.images), image_hashes(test.images)).any()

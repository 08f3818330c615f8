from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibration.dataset import Dataset
from calibration.errors import CorruptData, DataError, DataNotFound, EmptyData, UnknownData
from calibration.load import load
from tests.fixtures.official_files import strokes

CLASSES = ("a", "b")


def test_digest_follows_images_labels_and_their_order() -> None:
    images, labels = strokes(4), np.array([0, 1, 0, 1])
    one = Dataset.of(images, labels, CLASSES, "x", "test")
    assert one.sha256 == Dataset.of(images.copy(), labels.copy(), CLASSES, "y", "train").sha256
    assert one.sha256 != Dataset.of(images[::-1], labels, CLASSES, "x", "test").sha256
    assert one.sha256 != Dataset.of(images, labels[::-1], CLASSES, "x", "test").sha256


@pytest.mark.parametrize(
    ("images", "labels", "error", "message"),
    [
        (strokes(0), [], EmptyData, "holds no images"),
        (strokes(3), [1, 1, 1], EmptyData, "single class, 'b'"),
        (strokes(2), [0, 2], CorruptData, "labels run to 2 but there are 2 classes"),
        (strokes(2), [0], CorruptData, r"\[2, 28, 28\] and \[1\]"),
        (strokes(2).astype(np.float32), [0, 1], CorruptData, "got float32"),
        (strokes(2)[:, :20], [0, 1], CorruptData, r"got uint8 \[2, 20, 28\]"),
    ],
    ids=["empty", "one class", "label too large", "labels missing", "float", "shape"],
)
def test_what_is_no_dataset(images: np.ndarray, labels: list[int], error: type[DataError], message: str) -> None:
    with pytest.raises(error, match=message):
        Dataset.of(images, np.array(labels, np.int64), CLASSES, "x", "test")


def test_take_keeps_the_order_asked_for() -> None:
    data = Dataset.of(strokes(4), np.array([0, 1, 0, 1]), CLASSES, "x", "test")
    some = data.take(np.array([3, 0]), "two")
    assert np.array_equal(some.images, data.images[[3, 0]])
    assert (some.labels.tolist(), some.origin, some.split) == ([1, 0], "x [two]", "test")


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("emnist:balnced", UnknownData, "did you mean balanced"),
        ("emnist", UnknownData, "did you mean emnist:balanced"),
        ("balanced", UnknownData, "did you mean emnist:balanced"),
        ("digits", UnknownData, "did you mean emnist:digits, builtin:digits"),
        ("builtin:letters", UnknownData, "did you mean builtin:digits"),
        ("{tmp}:digit", UnknownData, "did you mean digits"),
        (
            "{tmp}/nothing",
            DataNotFound,
            "no folder .*/nothing; --data takes builtin:digits, builtin:digits8x8, emnist:SPLIT",
        ),
        ("{tmp}/nothing:balanced", DataNotFound, "no folder .*/nothing; --data takes"),
        ("{tmp}/file.png", EmptyData, "file.png is empty; copy it again"),
    ],
)
def test_words_that_name_nothing(spec: str, error: type[DataError], message: str, tmp_path: Path) -> None:
    (tmp_path / "file.png").touch()
    with pytest.raises(error, match=message) as caught:
        load(spec.format(tmp=tmp_path))
    assert "\n" not in str(caught.value)

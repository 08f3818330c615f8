from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calibration.errors import CorruptData
from calibration.load import load


def scan(path: Path, bar: int) -> None:
    """Write a bar on a page of 128x128 pixels, black on white."""
    page = np.full((128, 128), 255, np.uint8)
    page[30:90, 60 : 64 + bar] = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(page).save(path)


def test_nist_s_parts_are_the_splits_and_repeats_are_left_out(tmp_path: Path) -> None:
    root = tmp_path / "by_class"
    for index, code in enumerate(("4a", "41", "7a", "30")):
        for number, part in enumerate(("hsf_0", "hsf_1", "hsf_4", f"train_{code}")):
            scan(root / code / part / f"{number}.png", index * 4 + number % 3)
    for spec in (root, tmp_path):
        test, train = load(str(spec), "test"), load(str(spec), "train")
        assert test.classes == train.classes == ("0", "A", "J", "z")
        assert (len(test), len(train)) == (4, 8)
        assert test.images.shape[1:] == (28, 28)
        assert "folders are codes of characters, 30 to 7a (0AJz); hsf_4 is the test split" in test.found
    assert load(f"{tmp_path}[A,z]", "test").classes == ("A", "z")


def test_pictures_without_parts_are_split_by_their_pixels(tmp_path: Path) -> None:
    for index, code in enumerate(("31", "62")):
        for number in range(10):
            scan(tmp_path / "by_class" / code / f"{number}.png", index * 20 + number)
    test, train = load(str(tmp_path), "test"), load(str(tmp_path), "train")
    assert len(test) + len(train) == 20
    assert (test.classes, set(test.labels), set(train.labels)) == (("1", "b"), {0, 1}, {0, 1})


def test_other_folders_keep_their_names(tmp_path: Path) -> None:
    """Classes called 30 and 31 are numbers, unless the folder is NIST's."""
    for index, name in enumerate(("30", "31")):
        for number in range(4):
            scan(tmp_path / "forms" / name / f"{number}.png", index * 20 + number)
    assert load(str(tmp_path / "forms")).classes == ("30", "31")


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    for code in ("31", "62"):
        for part in ("hsf_0", "hsf_4"):
            scan(tmp_path / "by_class" / code / part / "1.png", 0)
    (tmp_path / "by_class" / "62" / "hsf_4" / "1.png").write_bytes(b"nothing")
    with pytest.raises(CorruptData, match=r"62/hsf_4/1.png is not a readable picture"):
        load(str(tmp_path))

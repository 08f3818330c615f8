from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calibration.errors import CorruptData, DataError, DataNotFound, EmptyData
from calibration.load import all_digits, load
from calibration.sample import image_hashes

PER_CLASS = 10


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of ten glyphs, saved dark on light as scans are."""
    root = tmp_path / "forms"
    images, labels = all_digits()
    for digit in (3, 7):
        place = root / str(digit)
        place.mkdir(parents=True)
        for index, image in enumerate(images[labels == digit][:PER_CLASS]):
            Image.fromarray(255 - image).save(place / f"{index:02}.png")
    return root


def test_pictures_become_upright_glyphs_split_by_class(folder: Path) -> None:
    images, labels = all_digits()
    train, test = load(str(folder), "train"), load(str(folder), "test")
    assert (len(train), len(test)) == (16, 4)
    assert np.bincount(test.labels).tolist() == [2, 2]
    assert (test.classes, test.origin) == (("3", "7"), "forms/test")
    threes = image_hashes(images[labels == 3][:PER_CLASS])
    assert np.isin(image_hashes(train.images[train.labels == 0]), threes).all()


def test_copies_never_straddle_the_split(folder: Path) -> None:
    for path in sorted(folder.rglob("*.png")):
        shutil.copy(path, path.with_name(f"copy-{path.name}"))
    # A copy under another label must not straddle either.
    for path in sorted((folder / "3").glob("0*.png")):
        shutil.copy(path, folder / "7" / f"wrong-{path.name}")
    train, test = load(str(folder), "train"), load(str(folder), "test")
    assert len(train) + len(test) == 50
    assert not np.isin(image_hashes(test.images), image_hashes(train.images)).any()


def test_split_hangs_on_pixels_not_names(folder: Path) -> None:
    before = set(image_hashes(load(str(folder), "test").images))
    for path in sorted(folder.rglob("*.png")):
        path.rename(path.with_name(f"{99 - int(path.stem)}.png"))
    assert set(image_hashes(load(str(folder), "test").images)) == before


def test_row21_a_folder_with_one_split_gives_that_one(folder: Path, tmp_path: Path) -> None:
    folder.rename(tmp_path / "test")
    (tmp_path / "set").mkdir()
    (tmp_path / "test").rename(tmp_path / "set" / "test")
    assert len(load(str(tmp_path / "set"), "test")) == 2 * PER_CLASS
    with pytest.raises(DataNotFound, match=r"has no folder train/ beside test/"):
        load(str(tmp_path / "set"), "train")


def test_train_and_test_folders_are_the_splits(folder: Path) -> None:
    for split in ("train", "test"):
        shutil.copytree(folder, folder.parent / "both" / split)
    for path in (folder.parent / "both" / "test").rglob("0[3-9].png"):
        path.unlink()
    assert len(load(str(folder.parent / "both"), "train")) == 20
    assert len(load(str(folder.parent / "both"), "test")) == 6


def test_train_and_test_with_other_classes(folder: Path) -> None:
    for split in ("train", "test"):
        shutil.copytree(folder, folder.parent / "both" / split)
    (folder.parent / "both" / "test" / "7").rename(folder.parent / "both" / "test" / "8")
    with pytest.raises(CorruptData, match="classes 7, 8 are not in both"):
        load(str(folder.parent / "both"), "train")


def test_hidden_files_are_left_out(folder: Path) -> None:
    (folder / "3" / ".DS_Store").write_bytes(b"x")
    (folder / ".cache").mkdir()
    assert len(load(str(folder), "train")) == 16


def spoil_text(folder: Path) -> None:
    (folder / "3" / "notes.txt").write_text("hello")


def spoil_cut(folder: Path) -> None:
    path = folder / "7" / "04.png"
    path.write_bytes(path.read_bytes()[:-60])


def spoil_blank(folder: Path) -> None:
    Image.new("L", (40, 40), 255).save(folder / "7" / "blank.png")


def spoil_class(folder: Path) -> None:
    shutil.rmtree(folder / "7")


def spoil_all(folder: Path) -> None:
    spoil_class(folder)
    shutil.rmtree(folder / "3")


def spoil_pictures(folder: Path) -> None:
    for path in (folder / "3").iterdir():
        path.unlink()


def spoil_variety(folder: Path) -> None:
    for path in (folder / "3").iterdir():
        shutil.copy(folder / "3" / "00.png", path) if path.name != "00.png" else None


def spoil_kind(folder: Path) -> None:
    (folder / "official").mkdir()
    (folder / "official" / "emnist-letters-test-images-idx3-ubyte.gz").touch()


def spoil_name(folder: Path) -> None:
    (folder / "7").rename(os.fsdecode(bytes(folder) + b"/z\xff"))


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        pytest.param(spoil_name, CorruptData, r"the folder name 'z\\udcff' is not UTF-8; rename it", id="row61-name"),
        (spoil_text, CorruptData, "3/notes.txt is not a readable picture"),
        (spoil_cut, CorruptData, "7/04.png is a damaged picture"),
        (spoil_blank, CorruptData, "7/blank.png: there is no ink in it"),
        (spoil_class, EmptyData, "holds a single class, '3'"),
        (spoil_all, EmptyData, "holds no class subfolders; put the pictures"),
        (spoil_pictures, EmptyData, "3 holds no pictures"),
        (spoil_variety, EmptyData, "class '3' has 1 different images and cannot be split"),
        (spoil_kind, EmptyData, "holds EMNIST files, not pictures; write .*forms:letters"),
    ],
)
def test_bad_folder_is_one_clear_line(spoil, error: type[DataError], message: str, folder: Path) -> None:
    spoil(folder)
    with pytest.raises(error, match=message) as caught:
        load(str(folder))
    assert "\n" not in str(caught.value)

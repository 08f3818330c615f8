"""Reads a folder of pictures, a subfolder for each class, into a Dataset of glyphs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import cast

import numpy as np

from calibration.dataset import SIDE, Dataset, Images, Labels, Split
from calibration.errors import CorruptData, DataNotFound, EmptyData
from calibration.glyph import glyph
from calibration.picture import open_picture
from calibration.sample import TEST_SHARE, held_out
from calibration.spec import brackets, chosen_classes

_PARTS: tuple[Split, Split] = ("train", "test")
CLASS_LIST = "classes.json"
"""File in a folder of pictures that lists its classes in order, each with the name of its subfolder.

So a folder can lack pictures of some of a model's classes, and `A` and `a` need no folders that differ in case alone.
"""
_SAFE_FOLDER = re.compile(r"\w{1,64}", re.ASCII)


def load_folder(folder: Path, split: Split, names: tuple[str, ...] = ()) -> Dataset:
    """Read pictures of any size, dark on light or light on dark, as glyphs; classes are the sorted subfolder names.

    names: the classes to read, in the order of the labels; all without any.

    A CLASS_LIST in the folder names the classes and their order instead. Folders `train/` and `test/` are the splits;
    without them a fifth of each class is the test split, chosen by the pixels. Raises DataNotFound, EmptyData, and
    CorruptData with the picture.
    """
    parts = _split_folders(folder)
    if parts and split not in parts:
        raise DataNotFound(f"{folder} has no folder {split}/ beside {parts[0]}/; add it, or do without {split} images")
    listed = listed_classes(folder)
    every = tuple(listed) or (_same_classes(folder, parts) if parts else _classes(folder))
    classes = chosen_classes(names, every, str(folder)) if names else every
    choice = brackets(classes) if classes != every else ""
    origin = f"{folder.name}{choice}/{split}"
    images, labels = _read(folder / split if parts else folder, classes, listed)
    if parts:
        return Dataset.of(images, labels, classes, origin, split)
    test = held_out(images, labels, classes, TEST_SHARE)
    mask = test if split == "test" else ~test
    return Dataset.of(images[mask], labels[mask], classes, origin, split)


def read_picture(path: Path) -> Images:
    """Return one picture file as a glyph, uint8 [28, 28]; raises DataNotFound, and CorruptData with the file."""
    with open_picture(path, too_large="too many for a single character; crop it") as picture:
        return glyph(picture)


def listed_classes(folder: Path) -> dict[str, str]:
    """Return class -> name of its subfolder, in the order of the CLASS_LIST; empty where the folder has none.

    A class may have no subfolder, and then has no pictures. Raises CorruptData with the file.
    """
    path = folder / CLASS_LIST
    if not path.is_file():
        return {}
    try:
        listed = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CorruptData(f"{path} is no JSON ({error}); write it again, or remove it") from error
    names = list(listed.values()) if isinstance(listed, dict) else [""]
    if not names or not all(isinstance(name, str) and _SAFE_FOLDER.fullmatch(name) for name in names):
        raise CorruptData(
            f'{path} should be an object of class -> subfolder, such as {{"A": "upper_A"}}, with folders named of '
            "A-Z, a-z, 0-9 and _; correct it"
        )
    if len({name.casefold() for name in names}) < len(names):
        raise CorruptData(f"{path} gives two classes one folder; correct it")
    return cast("dict[str, str]", listed)


def _classes(folder: Path) -> tuple[str, ...]:
    emnist_file = next(folder.glob("emnist-*-ubyte*"), None) or next(folder.glob("*/emnist-*-ubyte*"), None)
    emnist_file = emnist_file or next(folder.glob("*/*/emnist-*-ubyte*"), None)
    if emnist_file:
        raise EmptyData(f"{folder} holds EMNIST files, not pictures; write {folder}:{emnist_file.name.split('-')[1]}")
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    for name in (folder.resolve().name, *names):
        if not name.isascii() and name != name.encode(errors="ignore").decode():
            raise CorruptData(f"{folder}: the folder name {name!a} is not UTF-8; rename it, or run with LC_ALL=C.UTF-8")
    if not names:
        from calibration.data_file import data_files

        if files := data_files(folder):
            raise EmptyData(f"{folder} holds no folders of pictures, but {files[0].name}; give that file: {files[0]}")
        raise EmptyData(
            f"{folder} holds no class subfolders; put the pictures of each class into a folder named after the class"
        )
    if len(names) == 1:
        raise EmptyData(f"{folder} holds a single class, '{names[0]}'; two or more are needed")
    return tuple(names)


def _split_folders(folder: Path) -> tuple[Split, ...]:
    """Return the splits that have a folder of their name: both, or one where there are no other folders."""
    names = {path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}
    parts = tuple(part for part in _PARTS if part in names)
    return parts if len(parts) == len(_PARTS) or names == set(parts) else ()


def _same_classes(folder: Path, parts: tuple[Split, ...]) -> tuple[str, ...]:
    sides = [_classes(folder / part) for part in parts]
    if different := sorted(set(sides[0]) ^ set(sides[-1])):
        raise CorruptData(
            f"{folder}: classes {', '.join(different[:5])} are not in both train/ and test/; make them match"
        )
    return sides[0]


def _read(folder: Path, classes: tuple[str, ...], listed: dict[str, str]) -> tuple[Images, Labels]:
    """Read the pictures of the classes. listed: as `listed_classes` returns it."""
    folders = [folder / listed.get(name, name) for name in classes]
    files = [
        (path, label)
        for label, place in enumerate(folders)
        if not listed or place.is_dir()
        for path in _pictures(place)
    ]
    images = np.empty((len(files), SIDE, SIDE), np.uint8)
    for index, (path, _) in enumerate(files):
        images[index] = read_picture(path)
    return images, np.array([label for _, label in files], np.int64)


def _pictures(folder: Path) -> list[Path]:
    pictures = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not pictures:
        raise EmptyData(f"{folder} holds no pictures; add some, or name another data set")
    return pictures

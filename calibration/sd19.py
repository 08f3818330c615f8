"""NIST's Special Database 19 as it is published: a PNG of 128x128 pixels for each character, in folders by class.

A folder of `by_class` is called after the character's code in hexadecimal (`41` is A). In it lie `hsf_0` to `hsf_7`,
the parts that were collected, and `train_41`, which holds all of them but `hsf_4` again: NIST's partition for tests is
`hsf_4`, from which EMNIST's test images are made.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from calibration.dataset import SIDE, Dataset, Split
from calibration.errors import DataNotFound, EmptyData
from calibration.listener import listener
from calibration.picture_folder import read_picture
from calibration.sample import TEST_SHARE, held_out
from calibration.spec import classes_text

_ROOT = "by_class"
_CODE = re.compile("3[0-9]|[46][1-9a-f]|[57][0-9a]", re.IGNORECASE)
_TEST_PART = "hsf_4"
_REPORTED = 256


def by_class_folder(folder: Path) -> Path | None:
    """Return the folder `by_class`, the folder itself or one in it, whose folders are called after codes."""
    for root in (folder, folder / _ROOT):
        if root.resolve().name == _ROOT and root.is_dir() and _codes(root):
            return root
    return None


def load_by_class(root: Path, split: Split) -> Dataset:
    """Read the pictures of one split as glyphs; raises EmptyData, DataNotFound, and CorruptData with the picture.

    The test split is `hsf_4`; where no class has it, a fifth of each class, chosen by the pixels.
    """
    codes = _codes(root)
    classes = tuple(chr(int(code, 16)) for code in codes)
    by_part = any((root / code / _TEST_PART).is_dir() for code in codes)
    files = [(path, label) for label, code in enumerate(codes) for path in _files(root / code, split, by_part)]
    if not files:
        raise DataNotFound(f"{root} has no {split} images; unpack the whole archive of NIST there")
    images = np.empty((len(files), SIDE, SIDE), np.uint8)
    for index, (path, _) in enumerate(files):
        images[index] = read_picture(path)
        if (index + 1) % _REPORTED == 0 or index + 1 == len(files):
            listener().progress(f"reading {root.name}", index + 1, len(files))
    labels = np.array([label for _, label in files], np.int64)
    origin = f"{root.name}/{split}"
    found = f"{root}: folders are codes of characters, {codes[0]} to {codes[-1]} ({classes_text(classes)})"
    if by_part:
        data = Dataset.of(images, labels, classes, origin, split)
        return replace(data, found=f"{found}; {_TEST_PART} is the test split")
    test = held_out(images, labels, classes, TEST_SHARE)
    mask = test if split == "test" else ~test
    data = Dataset.of(images[mask], labels[mask], classes, origin, split)
    return replace(data, found=f"{found}; a fifth of each class is the test split")


def _codes(root: Path) -> list[str]:
    """Return the folders called after codes, in the order of the characters; none if others are there."""
    names = [path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return sorted(names, key=str.lower) if all(_CODE.fullmatch(name) for name in names) else []


def _files(folder: Path, split: Split, by_part: bool) -> list[Path]:
    """Return the pictures of a class in a split, sorted; those of the class itself where no part is for tests."""
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and path.name.startswith("hsf_"))
    if by_part:
        folders = [part for part in folders if (part.name == _TEST_PART) == (split == "test")]
        # `train_41` repeats the other parts, and may stand alone.
        folders = folders or [part for part in (folder / f"train_{folder.name}",) if split == "train" and part.is_dir()]
    else:
        folders = folders or [folder]
    files = [path for part in folders for path in sorted(part.iterdir()) if path.suffix.lower() == ".png"]
    if not files and not by_part:
        raise EmptyData(f"{folder} holds no PNG; unpack the whole archive of NIST, or remove the folder")
    return files

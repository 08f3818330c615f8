"""A user's folder of pictures, a subfolder a class, as a Dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from calibration.dataset import SIDE, Dataset, Images, Labels, Split
from calibration.errors import CorruptData, DataNotFound, EmptyData
from calibration.glyph import glyph
from calibration.holdout import held_out

_TEST_SHARE = 0.2
_PARTS: tuple[Split, Split] = ("train", "test")


def load_folder(folder: Path, split: Split) -> Dataset:
    """Read pictures of any size and polarity as glyphs; classes are the subfolders' names in sorted order.

    With `train/` and `test/` those are the splits; otherwise a fifth of each class is the test split, chosen by the
    pixels. Raises DataNotFound, EmptyData, and CorruptData naming the picture.
    """
    if all((folder / part).is_dir() for part in _PARTS):
        classes = _same_classes(folder)
        images, labels = _read(folder / split, classes)
        return Dataset.of(images, labels, classes, f"{folder.name}/{split}", split)
    classes = _classes(folder)
    images, labels = _read(folder, classes)
    test = held_out(images, labels, classes, _TEST_SHARE)
    keep = test if split == "test" else ~test
    return Dataset.of(images[keep], labels[keep], classes, f"{folder.name}/{split}", split)


def read_picture(path: Path) -> Images:
    """Return one picture file as a glyph, uint8 [28, 28]; raises DataNotFound, CorruptData naming the file."""
    try:
        with Image.open(path) as picture:
            return glyph(picture)
    except FileNotFoundError as error:
        raise DataNotFound(f"no picture {path}; check the path") from error
    except CorruptData as error:
        raise CorruptData(f"{path}: {error}") from error
    except UnidentifiedImageError as error:
        raise CorruptData(f"{path} is no picture that can be read; remove it or save it as PNG") from error
    # Pillow's decoders raise these for truncated, hostile and malformed files.
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise CorruptData(f"{path} is a damaged picture ({error}); remove it or save it again") from error


def _classes(folder: Path) -> tuple[str, ...]:
    stray = next(folder.glob("emnist-*-ubyte*"), None) or next(folder.glob("*/emnist-*-ubyte*"), None)
    if stray:
        raise EmptyData(f"{folder} holds EMNIST files, not pictures; write {folder}:{stray.name.split('-')[1]}")
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not names:
        raise EmptyData(f"{folder} holds no class subfolders; put the pictures of a class into one named as the class")
    if len(names) == 1:
        raise EmptyData(f"{folder} holds a single class, '{names[0]}'; two or more are needed")
    return tuple(names)


def _same_classes(folder: Path) -> tuple[str, ...]:
    train, test = (_classes(folder / part) for part in _PARTS)
    if odd := sorted(set(train) ^ set(test)):
        raise CorruptData(f"{folder}: classes {', '.join(odd[:5])} are not in both train/ and test/; make them match")
    return train


def _read(folder: Path, classes: tuple[str, ...]) -> tuple[Images, Labels]:
    files = [(path, label) for label, name in enumerate(classes) for path in _pictures(folder / name)]
    images = np.empty((len(files), SIDE, SIDE), np.uint8)
    for index, (path, _) in enumerate(files):
        images[index] = read_picture(path)
    return images, np.array([label for _, label in files], np.int64)


def _pictures(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not found:
        raise EmptyData(f"{folder} holds no pictures; add some or remove the folder")
    return found

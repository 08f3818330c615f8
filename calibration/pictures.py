"""A folder of pictures with one subfolder per class, as a Dataset."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from calibration.choice import brackets, chosen_classes
from calibration.dataset import SIDE, Dataset, Images, Labels, Split
from calibration.errors import CorruptData, DataNotFound, EmptyData
from calibration.glyph import glyph
from calibration.sample import TEST_SHARE, held_out

_PIXELS = 16 << 20
_PARTS: tuple[Split, Split] = ("train", "test")


def load_folder(folder: Path, split: Split, names: tuple[str, ...] = ()) -> Dataset:
    """Read pictures of any size, dark on light or light on dark, as glyphs; classes are the sorted subfolder names.

    names: the classes to read, in the order of the labels; all without any.

    Folders `train/` and `test/` are the splits; without them a fifth of each class is the test split, chosen by the
    pixels. Raises DataNotFound, EmptyData, and CorruptData with the picture.
    """
    parts = _split_folders(folder)
    if parts and split not in parts:
        raise DataNotFound(f"{folder} has no folder {split}/ beside {parts[0]}/; add it, or do without {split} images")
    every = _same_classes(folder, parts) if parts else _classes(folder)
    classes = chosen_classes(names, every, str(folder)) if names else every
    choice = brackets(classes) if classes != every else ""
    origin = f"{folder.name}{choice}/{split}"
    images, labels = _read(folder / split if parts else folder, classes)
    if parts:
        return Dataset.of(images, labels, classes, origin, split)
    test = held_out(images, labels, classes, TEST_SHARE)
    mask = test if split == "test" else ~test
    return Dataset.of(images[mask], labels[mask], classes, origin, split)


def read_picture(path: Path) -> Images:
    """Return one picture file as a glyph, uint8 [28, 28]; raises DataNotFound, and CorruptData with the file."""
    try:
        with warnings.catch_warnings():
            # Warnings about damaged metadata, which is not needed, and about sizes that are refused here.
            warnings.simplefilter("ignore")
            with Image.open(path) as picture:
                if picture.width * picture.height > _PIXELS:
                    raise CorruptData(
                        f"{picture.width:,} x {picture.height:,} pixels are too many for a single character; crop it"
                    )
                return glyph(picture)
    except FileNotFoundError as error:
        raise DataNotFound(f"no picture {path}; check the path") from error
    except CorruptData as error:
        raise CorruptData(f"{path}: {error}") from error
    except UnidentifiedImageError as error:
        raise CorruptData(f"{path} is not a readable picture; remove it or save it as PNG") from error
    # Pillow's decoders raise these for truncated, hostile and malformed files.
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise CorruptData(f"{path} is a damaged picture ({error}); remove it or save it again") from error


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


def _read(folder: Path, classes: tuple[str, ...]) -> tuple[Images, Labels]:
    files = [(path, label) for label, name in enumerate(classes) for path in _pictures(folder / name)]
    images = np.empty((len(files), SIDE, SIDE), np.uint8)
    for index, (path, _) in enumerate(files):
        images[index] = read_picture(path)
    return images, np.array([label for _, label in files], np.int64)


def _pictures(folder: Path) -> list[Path]:
    pictures = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not pictures:
        raise EmptyData(f"{folder} holds no pictures; add some or remove the folder")
    return pictures

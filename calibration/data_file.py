"""Data files by their content: tables of pixels, MATLAB's and parquet files, MNIST's IDX files.

The format is told by the first bytes, not by the name. A name such as `emnist-balanced-train.csv` says the split of
EMNIST; the other half of the data is the file beside it with `test` in the place of `train`, and the reverse.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from calibration.conventions import ALONE, Hints, settled
from calibration.dataset import Dataset, Split
from calibration.errors import CorruptData, DataNotFound, EmptyData
from calibration.idx import open_idx
from calibration.sample import TEST_SHARE, held_out
from calibration.spec import SPLITS
from calibration.stored import Stored
from glyphpress.registry import Registry

_OTHER: dict[Split, Split] = {"train": "test", "test": "train"}
_SPLIT_OF_EMNIST = re.compile(r"emnist-([a-z]+)(?:-train|-test)?\.", re.IGNORECASE)
_HALF = re.compile(r"(?<![A-Za-z])(train|test)(?![A-Za-z])", re.IGNORECASE)
_SHARD = re.compile(r"-\d+-of-\d+\.parquet$")
_MNIST: dict[Split, str] = {"train": "train", "test": "t10k"}
_ENDS = (".csv", ".csv.gz", ".mat", ".parquet")
_GZIP = b"\x1f\x8b"
_POINTER = b"version https://git-lfs"


def _reader(_name: str, value: Any) -> Callable[[Path], Stored]:
    if not callable(value):
        raise TypeError(f"it gives {value!r:.60}, and a function that takes a path is needed")
    read: Callable[[Path], Stored] = value
    return read


OWN = {
    "csv": "calibration.pixel_table:read_pixel_table",
    "mat": "calibration.matlab:read_matlab",
    "parquet": "calibration.parquet:read_parquet",
}
REGISTRY = Registry("reader", lambda: OWN, _reader, lambda: ("gz", "txt"))
"""Those above, which are found by the first bytes, and those of plug-ins, each called after the suffix of its files."""


def load_file(path: Path, split: Split, hints: Hints) -> Dataset:
    """Load one split of the data set to which a file belongs.

    Raises DataNotFound where the other half is asked for and not there, CorruptData, EmptyData, and UnknownData with
    the hint that is missing.
    """
    kind = _kind(path)
    named = _SPLIT_OF_EMNIST.match(path.name)
    table = hints.split or (SPLITS.get(named[1].lower()) if named else None)
    hints = replace(hints, split=table)
    usual = "transpose" if named and kind in ("csv", "mat") else ""
    origin = f"emnist:{table.name}/{split}" if named and table else f"{path.name.split('.')[0]}/{split}"
    if kind == "mat":
        from calibration.matlab import read_matlab

        return settled(read_matlab(path, split), path, hints, usual=usual, origin=origin, split=split)
    files = [] if hints.alone else _half(path, split)
    stored = _read(files or [path], kind)
    whole = settled(stored, (files or [path])[0], hints, usual=usual, origin=origin, split=split)
    if files:
        return whole
    test = held_out(whole.images, whole.labels, whole.classes, TEST_SHARE)
    part = whole.take(np.flatnonzero(test if split == "test" else ~test), split)
    return replace(part, origin=origin, found=f"{whole.found}; a fifth of each class is the test split")


def load_mnist(folder: Path, split: Split) -> Dataset:
    """Load one split of MNIST's four IDX files, as MNIST and Fashion-MNIST are published: ten classes, upright."""
    images, labels = (_mnist_file(folder, split, kind) for kind in ("images-idx3", "labels-idx1"))
    if images is None or labels is None:
        missing = "images-idx3" if images is None else "labels-idx1"
        raise DataNotFound(f"{folder} lacks {_MNIST[split]}-{missing}-ubyte[.gz]; copy it beside the other files")
    with open_idx(images) as reader:
        if len(reader.shape) != 3 or reader.shape[1] != reader.shape[2]:
            raise reader.corrupt(4, "a shape of N x 28 x 28", " x ".join(map(str, reader.shape)))
        pixels = reader.read_all()
    with open_idx(labels) as reader:
        reader.expect()
        numbers = reader.read_all()
        if len(numbers) != len(pixels):
            expectation = f"{len(pixels):,} labels, as {images.name} has images,"
            raise reader.corrupt(4, expectation, f"{len(numbers):,}", "copy both files from the same archive")
    if not len(pixels):
        raise EmptyData(f"{images} holds no images; give one that does")
    stored = Stored(pixels, numbers.astype(np.int64), lambda index: f"image {index:,}", tuple("0123456789"))
    return settled(stored, images, Hints(), usual="upright", origin=f"{folder.name}/{split}", split=split)


def has_mnist(folder: Path) -> bool:
    """Return whether a folder has images in MNIST's IDX files."""
    return any(_mnist_file(folder, split, "images-idx3") for split in _MNIST)


def data_files(folder: Path) -> list[Path]:
    """Return the tables, MATLAB's and parquet files in a folder, by the ends of their names."""
    return sorted(path for path in folder.iterdir() if path.name.lower().endswith(_ENDS) and path.is_file())


def _mnist_file(folder: Path, split: Split, kind: str) -> Path | None:
    # torchvision and Kaggle unpack the same file under these two names.
    names = (f"{_MNIST[split]}-{kind}-ubyte", f"{_MNIST[split]}-{kind.replace('-', '.')}-ubyte")
    paths = (folder / f"{name}{suffix}" for name in names for suffix in (".gz", ""))
    return next((path for path in paths if path.is_file()), None)


def _kind(path: Path) -> str:
    """Return the name of a reader; raises CorruptData for content that none reads, with what can be done."""
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        raise EmptyData(f"{path} is empty; copy it again")
    if start.startswith(_POINTER):
        raise CorruptData(f"{path} is a pointer of Git LFS, not the file; fetch it with `git lfs pull`")
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in OWN:
        with suppress(KeyError):
            REGISTRY.require(suffix)
            return suffix
    if start.startswith(b"PAR1"):
        return "parquet"
    if start.startswith((b"MATLAB", b"\x89HDF")):
        return "mat"
    if start.startswith(b"PK"):
        raise CorruptData(f"{path} is a zip archive; unpack it, and give the file or folder that you want")
    idx = start.startswith(b"\0\0\x08") or "-ubyte" in path.name
    if b"\0" in start and not idx and not start.startswith(_GZIP):
        raise CorruptData(
            f"{path} is neither a table as text, nor parquet, nor a MATLAB file of version 5 or later; save it as one "
            "of these (in MATLAB with `save -v7`)"
        )
    if idx:
        named = _SPLIT_OF_EMNIST.match(f"{path.name.split('-images')[0].split('-labels')[0]}.")
        raise CorruptData(
            f"{path} is one of several IDX files; give their folder, {path.parent}{f':{named[1]}' if named else ''}"
        )
    return "csv"


def _read(paths: list[Path], kind: str) -> Stored:
    if kind not in OWN:
        return _checked(REGISTRY.get(kind)(paths[0]), paths[0], kind)
    if kind == "parquet":
        from calibration.parquet import read_parquet

        return read_parquet(paths)
    from calibration.pixel_table import read_pixel_table

    return read_pixel_table(paths[0])


def _checked(stored: Stored, path: Path, kind: str) -> Stored:
    """Return what a plug-in read; raises CorruptData, naming the plug-in, where it is not what `Stored` says."""
    arrays = (stored.images, stored.labels) if isinstance(stored, Stored) else ()
    kinds = [(str(array.dtype), array.ndim) for array in arrays if isinstance(array, np.ndarray)]
    if kinds != [("uint8", 3), ("int64", 1)]:
        raise CorruptData(
            f"{path}: the {REGISTRY.plugins()[kind]} gives no Stored of uint8 images [N, H, W] and int64 labels [N]; "
            "repair it"
        )
    if not len(stored.images) or len(stored.labels) != len(stored.images):
        counts = f"{len(stored.images):,} images and {len(stored.labels):,} labels"
        raise CorruptData(f"{path} holds {counts}; give a file with as many of both")
    return stored


def _half(path: Path, split: Split) -> list[Path]:
    """Return the files of a split, by the names of halves; none where the name of a file says no half."""
    named = _HALF.search(path.name)
    if not named:
        return []
    if named[1].lower() != split:
        other = named[1].replace(named[1].lower(), split) if named[1].islower() else split.title()
        path, given = path.with_name(path.name[: named.start()] + other + path.name[named.end() :]), path
        if not (found := _shards(path)):
            raise DataNotFound(
                f"{given} holds {_OTHER[split]} images, and there is no {path.name} beside it; copy it there, or write "
                f"{given}:{ALONE}, which makes a fifth of that file the test split"
            )
        return found
    return _shards(path)


def _shards(path: Path) -> list[Path]:
    """Return all numbered parts of a parquet file, or the file itself; none where it is not there."""
    if not (shard := _SHARD.search(path.name)):
        return [path] if path.is_file() else []
    stem = path.name[: shard.start()]
    return sorted(other for other in path.parent.iterdir() if _SHARD.sub("", other.name) == stem and other.is_file())

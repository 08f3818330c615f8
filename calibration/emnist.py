"""EMNIST's official files: where they are, and how they become upright glyphs with labels from 0."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calibration.choice import brackets, chosen
from calibration.dataset import Dataset, Labels, Split, StreamedImages, refuse_absent, relabelled
from calibration.errors import CorruptData, DataNotFound
from calibration.idx import open_idx
from calibration.splits import EmnistSplit


@dataclass(frozen=True)
class SplitFiles:
    """One split's files in one folder; None where a file is missing."""

    folder: Path
    images: Path | None
    labels: Path | None

    @property
    def complete(self) -> bool:
        """Whether images and labels are both there."""
        return self.images is not None and self.labels is not None


def user_cache() -> Path | None:
    """Return the folder that `data fetch` fills when none is named; None where the user has no home."""
    from platformdirs import user_cache_path

    try:
        return user_cache_path("glyphpress") / "emnist"
    except RuntimeError:
        return None


def roots(data_root: Path | None) -> list[Path]:
    """Return where official files are looked for, first one first: `data_root`, $GLYPHPRESS_DATA, the user cache."""
    named = os.environ.get("GLYPHPRESS_DATA")
    return [*filter(None, (data_root, Path(named) if named else None, user_cache()))]


def find(table: EmnistSplit, split: Split, places: list[Path]) -> SplitFiles | None:
    """Return the files of a split, from the first of `places` that has any of them, or None.

    They may stand in a place itself or up to two folders below, as torchvision keeps them in ROOT/EMNIST/raw. Among
    those folders the one with both train and test is taken, so that images of two different partitions of EMNIST do
    not end up on the two sides.
    """
    other: Split = "train" if split == "test" else "test"
    for place in places:
        found = [files for folder in _folders(place) if (files := _files(folder, table, split)).images or files.labels]
        if found:
            return max(found, key=lambda files: (files.complete, _files(files.folder, table, other).complete))
    return None


FETCH = "`glyphpress data fetch` gets it, --data-root names another folder"


def load_split(
    table: EmnistSplit, split: Split, places: list[Path], spec: str, names: tuple[str, ...] = (), *, fix: str = FETCH
) -> Dataset:
    """Read one split, of the classes `names` alone where there are any; `fix` says what to do where it is missing.

    Raises DataNotFound naming the places, CorruptData naming file, offset and expectation, and UnknownData and
    EmptyData as `Dataset.choose` does.
    """
    classes = chosen(names, table.classes, spec) if names else table.classes
    files = find(table, split, places)
    stem = f"emnist-{table.name}-{split}"
    if files is None:
        looked = ", ".join(map(str, places)) or "a cache, since you have no home"
        other: Split = "train" if split == "test" else "test"
        only = f", where the {other} split is" if find(table, other, places) else ""
        raise DataNotFound(f"no {stem}-images-idx3-ubyte[.gz] in or below {looked}{only}; {fix}")
    if files.images is None or files.labels is None:
        missing = "images-idx3" if files.images is None else "labels-idx1"
        raise DataNotFound(f"{files.folder} lacks {stem}-{missing}-ubyte[.gz]; copy it beside the other file")
    check_mapping(table, files.folder)
    images = StreamedImages(files.images)
    labels = read_labels(files.labels, table, expected=len(images), images=files.images)
    below = files.folder not in places and files.folder.name not in {"gzip", "official", "raw"}
    which = brackets(classes) if classes != table.classes else ""
    origin = f"{spec}{which}/{split}" + (f" ({files.folder.name})" if below else "")
    if which:
        labels = relabelled(labels, table.classes, classes)
        refuse_absent(labels, classes, origin)
        kept = np.flatnonzero(labels >= 0)
        images, labels = images.only(kept), labels[kept]
    return Dataset.of(images, labels, classes, origin, split)


def read_labels(path: Path, table: EmnistSplit, *, expected: int, images: Path) -> Labels:
    """Return labels as indices into the split's classes; raises CorruptData when they cannot belong to the images."""
    low, high = table.label_offset, table.label_offset + len(table.classes) - 1
    with open_idx(path) as reader:
        reader.expect()
        stored = reader.read_all()
        if len(stored) != expected:
            wanted = f"{expected:,} labels, as {images.name} has images,"
            raise reader.corrupt(4, wanted, f"{len(stored):,}", "copy both files from the same archive")
        strange = np.flatnonzero((stored < low) | (stored > high))
        if len(strange):
            wanted, first = f"labels {low} to {high} of {table.name}", int(strange[0])
            raise reader.corrupt(8 + first, wanted, str(stored[first]), "is it another split's file?")
    return stored.astype(np.int64) - low


def check_mapping(table: EmnistSplit, folder: Path) -> None:
    """Raise CorruptData when a mapping file beside the images contradicts the split's classes."""
    path = folder / f"emnist-{table.name}-mapping.txt"
    if not path.is_file():
        return
    expected = {index + table.label_offset: char for index, char in enumerate(table.classes)}
    found = {}
    for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) < 2 or not all(word.isdecimal() for word in words):
            raise CorruptData(
                f"{path}, line {number}: expected a label and character codes, found '{line[:40]}'; fix it"
            )
        found[int(words[0])] = chr(int(words[1]))
    if found != expected:
        wrong = next(label for label in sorted(found.keys() | expected) if found.get(label) != expected.get(label))
        raise CorruptData(
            f"{path}: expected label {wrong} to be {_named(expected.get(wrong))} in {table.name}, "
            f"found {_named(found.get(wrong))}; is it another split's file?"
        )


def _named(char: str | None) -> str:
    return f"'{char}'" if char else "absent"


def _folders(place: Path) -> Iterator[Path]:
    """Yield the place, then its folders, then theirs."""
    if place.is_dir():
        below = _below(place)
        yield from (place, *below, *(folder for one in below for folder in _below(one)))


def _below(place: Path) -> list[Path]:
    try:
        return sorted(folder for folder in place.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    except PermissionError:
        # A neighbour that may not be looked into is no reason to stop.
        return []


def _files(folder: Path, table: EmnistSplit, split: Split) -> SplitFiles:
    def one(kind: str) -> Path | None:
        name = f"emnist-{table.name}-{split}-{kind}-ubyte"
        return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)

    return SplitFiles(folder, one("images-idx3"), one("labels-idx1"))

"""EMNIST's official files: finds them, and reads them as upright glyphs with labels from 0."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calibration.choice import brackets, chosen_classes
from calibration.dataset import Dataset, Labels, Split, StreamedImages, refuse_absent, relabelled
from calibration.errors import CorruptData, DataNotFound
from calibration.idx import open_idx
from calibration.splits import EmnistSplit


@dataclass(frozen=True)
class SplitFiles:
    """Files of one split in one folder; None where a file is missing."""

    folder: Path
    images: Path | None
    labels: Path | None

    @property
    def complete(self) -> bool:
        """Whether images and labels are both there."""
        return self.images is not None and self.labels is not None


def user_cache() -> Path | None:
    """Return the default folder of `data fetch`; None where the user has no home."""
    from platformdirs import user_cache_path

    try:
        return user_cache_path("glyphpress") / "emnist"
    except RuntimeError:
        return None


def roots(data_root: Path | None) -> list[Path]:
    """Return the folders that are searched for official files, in order: `data_root`, $GLYPHPRESS_DATA, user cache."""
    named = os.environ.get("GLYPHPRESS_DATA")
    return [*filter(None, (data_root, Path(named) if named else None, user_cache()))]


def find(table: EmnistSplit, split: Split, roots: list[Path]) -> SplitFiles | None:
    """Return the files of a split from the first of `roots` that has any of them, or None.

    They may be in the root itself or up to two folders below, as torchvision keeps them in ROOT/EMNIST/raw. Of several
    such folders the one with both train and test is taken, so that the two are not of different partitions of EMNIST.
    """
    other: Split = "train" if split == "test" else "test"
    for root in roots:
        candidates = [_files(folder, table, split) for folder in _folders(root)]
        candidates = [files for files in candidates if files.images or files.labels]
        if candidates:
            return max(candidates, key=lambda files: (files.complete, _files(files.folder, table, other).complete))
    return None


FETCH = "`glyphpress data fetch` gets it, --data-root names another folder"


def load_split(
    table: EmnistSplit, split: Split, roots: list[Path], spec: str, names: tuple[str, ...] = (), *, fix: str = FETCH
) -> Dataset:
    """Read one split. names: the classes to read, all without any. fix: the advice where its files are missing.

    Raises DataNotFound with the folders, CorruptData with file, offset and expectation, and UnknownData and EmptyData
    as `Dataset.choose` does.
    """
    classes = chosen_classes(names, table.classes, spec) if names else table.classes
    files = find(table, split, roots)
    stem = f"emnist-{table.name}-{split}"
    if files is None:
        searched = ", ".join(map(str, roots)) or "a cache, since you have no home"
        other: Split = "train" if split == "test" else "test"
        only = f", where the {other} split is" if find(table, other, roots) else ""
        raise DataNotFound(f"no {stem}-images-idx3-ubyte[.gz] in or below {searched}{only}; {fix}")
    if files.images is None or files.labels is None:
        missing = "images-idx3" if files.images is None else "labels-idx1"
        raise DataNotFound(f"{files.folder} lacks {stem}-{missing}-ubyte[.gz]; copy it beside the other file")
    check_mapping(table, files.folder)
    images = StreamedImages(files.images)
    labels = read_labels(files.labels, table, expected=len(images), images=files.images)
    below = files.folder not in roots and files.folder.name not in {"gzip", "official", "raw"}
    which = brackets(classes) if classes != table.classes else ""
    origin = f"{spec}{which}/{split}" + (f" ({files.folder.name})" if below else "")
    if which:
        labels = relabelled(labels, table.classes, classes)
        refuse_absent(labels, classes, origin)
        indices = np.flatnonzero(labels >= 0)
        images, labels = images.subset(indices), labels[indices]
    return Dataset.of(images, labels, classes, origin, split)


def read_labels(path: Path, table: EmnistSplit, *, expected: int, images: Path) -> Labels:
    """Return labels as indices into the split's classes; raises CorruptData where they do not fit the images."""
    low, high = table.label_offset, table.label_offset + len(table.classes) - 1
    with open_idx(path) as reader:
        reader.expect()
        stored = reader.read_all()
        if len(stored) != expected:
            expectation = f"{expected:,} labels, as {images.name} has images,"
            raise reader.corrupt(4, expectation, f"{len(stored):,}", "copy both files from the same archive")
        invalid = np.flatnonzero((stored < low) | (stored > high))
        if len(invalid):
            expectation, first = f"labels {low} to {high} of {table.name}", int(invalid[0])
            raise reader.corrupt(8 + first, expectation, str(stored[first]), "is it another split's file?")
    return stored.astype(np.int64) - low


def check_mapping(table: EmnistSplit, folder: Path) -> None:
    """Raise CorruptData where a mapping file beside the images contradicts the split's classes."""
    path = folder / f"emnist-{table.name}-mapping.txt"
    if not path.is_file():
        return
    expected = {index + table.label_offset: char for index, char in enumerate(table.classes)}
    mapping = {}
    for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
        codes = line.split()
        if not codes:
            continue
        if len(codes) < 2 or not all(code.isdecimal() for code in codes):
            raise CorruptData(
                f"{path}, line {number}: expected a label and character codes, found '{line[:40]}'; fix it"
            )
        mapping[int(codes[0])] = chr(int(codes[1]))
    if mapping != expected:
        wrong = next(label for label in sorted(mapping.keys() | expected) if mapping.get(label) != expected.get(label))
        raise CorruptData(
            f"{path}: expected label {wrong} to be {_named(expected.get(wrong))} in {table.name}, "
            f"found {_named(mapping.get(wrong))}; is it another split's file?"
        )


def _named(char: str | None) -> str:
    return f"'{char}'" if char else "absent"


def _folders(root: Path) -> Iterator[Path]:
    """Yield the root, then its folders, then the folders in those."""
    if root.is_dir():
        folders = _subfolders(root)
        yield from (root, *folders, *(inner for folder in folders for inner in _subfolders(folder)))


def _subfolders(parent: Path) -> list[Path]:
    try:
        return sorted(folder for folder in parent.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    except PermissionError:
        # A folder that cannot be read is skipped.
        return []


def _files(folder: Path, table: EmnistSplit, split: Split) -> SplitFiles:
    def file_of(kind: str) -> Path | None:
        name = f"emnist-{table.name}-{split}-{kind}-ubyte"
        return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)

    return SplitFiles(folder, file_of("images-idx3"), file_of("labels-idx1"))

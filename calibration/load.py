"""Data sets by their specs, as `--data` takes them: the built-in digits, EMNIST's files, and folders of pictures."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from calibration.builtin import BUILT_IN, DIGITS, SCANS
from calibration.dataset import Dataset, Labels, Split, StreamedImages, of_classes
from calibration.errors import CorruptData, DataNotFound, UnknownData
from calibration.idx import open_idx
from calibration.listener import listener
from calibration.sample import TEST_SHARE, held_out
from calibration.spec import SPLITS, EmnistSplit, brackets, chosen_classes, emnist_split, split_brackets

_FORMS = (
    f"{DIGITS}, {SCANS}, emnist:SPLIT, DIR:SPLIT, a folder of pictures with a subfolder a class, or a CSV, MATLAB or "
    "parquet FILE"
)


def load(spec: str, split: Split = "test", data_root: Path | None = None) -> Dataset:
    """Load the data set that a spec names.

    spec: `builtin:digits` and `builtin:digits8x8` (`digits`, `scans`); `emnist:SPLIT`, looked up under `data_root`,
    $GLYPHPRESS_DATA, then the user cache; `DIR:SPLIT`, the same official files (IDX, CSV or MATLAB) in or up to two
    levels below DIR; `DIR`, a folder of pictures, of MNIST's IDX files, or NIST's `by_class`; or `FILE` and
    `FILE:HINTS` (`calibration.data_file`). Brackets after any of them choose classes, as in `emnist:byclass[A-Z]`
    (`calibration.spec`). `SPLIT/train` and `SPLIT/test` are the images of that file alone: a fifth of each class is the
    test split, chosen by the pixels. What was found in a file that does not say how it is to be read is told to the
    `calibration.listener`.
    Raises UnknownData, DataNotFound, CorruptData, EmptyData.
    """
    data = _load(spec, split, data_root)
    if data.found:
        listener().say(data.found)
    return data


def _load(spec: str, split: Split, data_root: Path | None) -> Dataset:
    if Path(spec).exists():
        return _load_path(Path(spec), split)
    spec, names = split_brackets(spec)
    if spec in BUILT_IN:
        data = BUILT_IN[spec](split)
        return data.choose(names) if names else data
    if Path(spec).exists():
        return _load_path(Path(spec), split, names)
    before, colon, name = spec.rpartition(":")
    if not colon:
        raise _unknown(spec)
    if before == "builtin":
        raise UnknownData(f"there is no built-in data set '{name}'; did you mean {' or '.join(BUILT_IN)}?")
    if before == "emnist":
        return _load_official(name, split, search_folders(data_root), names)
    if Path(before).is_file():
        return _load_path(Path(before), split, names, name)
    if not Path(before).is_dir():
        raise DataNotFound(f"no folder {before}; --data takes {_FORMS}")
    return _load_official(name, split, [Path(before)], names, fix="copy its files there, or give another folder")


def _load_path(path: Path, split: Split, names: tuple[str, ...] = (), hints: str = "") -> Dataset:
    """Load a file, or a folder that says by its content what it is."""
    from calibration.conventions import Hints
    from calibration.data_file import has_mnist, load_file, load_mnist
    from calibration.picture_folder import load_folder
    from calibration.sd19 import by_class_folder, load_by_class

    if path.is_file():
        data = load_file(path, split, Hints.of(hints))
    elif not path.is_dir():
        raise DataNotFound(f"{path} is neither a file nor a folder; --data takes {_FORMS}")
    elif root := by_class_folder(path):
        data = load_by_class(root, split)
    elif mnist := next((folder for folder in _folders(path) if has_mnist(folder)), None):
        data = load_mnist(mnist, split)
    else:
        return load_folder(path, split, names)
    return data.choose(names) if names else data


def load_or_why(spec: str, split: Split, data_root: Path | None = None) -> Dataset | DataNotFound:
    """Return the data set, or the error if the split is missing, for callers that may not need it (`required`)."""
    try:
        return load(spec, split, data_root)
    except DataNotFound as error:
        return error


def required(data: Dataset | DataNotFound, why: str) -> Dataset:
    """Return the data; raises DataNotFound if it is missing. why: what needs it, the end of the message."""
    if isinstance(data, DataNotFound):
        raise DataNotFound(f"{data}; {why}") from data
    return data


def train_split(spec: str, data_root: Path | None, why: str) -> Dataset:
    """Return the train split of a spec; raises as `load` and `required` do."""
    return required(load_or_why(spec, "train", data_root), why)


def _unknown(spec: str) -> UnknownData | DataNotFound:
    known = {
        DIGITS: DIGITS,
        SCANS: SCANS,
        "digits8x8": SCANS,
        "digits": DIGITS,
        "builtin": DIGITS,
        "emnist": "emnist:balanced",
    }
    known |= {name: f"emnist:{name}" for name in SPLITS} | {f"emnist{name}": f"emnist:{name}" for name in SPLITS}
    near = [known[match] for match in difflib.get_close_matches(spec.lower(), known, n=3)]
    if near and "/" not in spec:
        return UnknownData(
            f"no folder and no data set is called '{spec}'; did you mean {', '.join(dict.fromkeys(near))}?"
        )
    return DataNotFound(f"no folder {spec}; --data takes {_FORMS}")


@dataclass(frozen=True)
class Entry:
    """A known data set. train, test: published numbers of images. found: folder of each split that is there."""

    spec: str
    classes: tuple[str, ...]
    train: int
    test: int
    found: dict[str, str]

    def line(self) -> str:
        """Return a line of a table with aligned columns, which ends with the folders of the files."""
        only = f" ({' '.join(self.found)} only)" if len(self.found) == 1 else ""
        folders = ", ".join(sorted(set(self.found.values()))) + only or "not here; `glyphpress data fetch` gets it"
        return f"{self.spec:17} {len(self.classes):3} classes {self.train:9,} train {self.test:9,} test  {folders}"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return asdict(self)


def catalog(data_root: Path | None = None) -> list[Entry]:
    """Return the built-in digits and EMNIST's six splits, with the folders in which `load` finds them."""
    roots = search_folders(data_root)
    here = {"train": "built in", "test": "built in"}
    entries = [
        Entry(spec, data("test").classes, len(data("train")), len(data("test")), here)
        for spec, data in BUILT_IN.items()
    ]
    for table in SPLITS.values():
        folders: dict[str, str] = {}
        splits: tuple[Split, Split] = ("train", "test")
        for split in splits:
            try:
                files = find_split(table, split, roots)
            except PermissionError as error:
                folders[split] = f"{error.filename}, which cannot be read"
                continue
            if files and files.complete:
                folders[split] = str(files.folder)
        entries.append(Entry(f"emnist:{table.name}", table.classes, table.train, table.test, folders))
    return entries


@dataclass(frozen=True)
class SplitFiles:
    """Files of one split in one folder; None where a file is missing. table: a CSV or MATLAB file of both."""

    folder: Path
    images: Path | None
    labels: Path | None
    table: Path | None

    @property
    def complete(self) -> bool:
        """Whether images and labels are both there."""
        return self.table is not None or (self.images is not None and self.labels is not None)


def user_cache() -> Path | None:
    """Return the default folder of `data fetch`; None where the user has no home."""
    from platformdirs import user_cache_path

    try:
        return user_cache_path("glyphpress") / "emnist"
    except RuntimeError:
        return None


def search_folders(data_root: Path | None) -> list[Path]:
    """Return the folders that are searched for official files, in order: `data_root`, $GLYPHPRESS_DATA, user cache."""
    named = os.environ.get("GLYPHPRESS_DATA")
    return [*filter(None, (data_root, Path(named) if named else None, user_cache()))]


def find_split(table: EmnistSplit, split: Split, roots: list[Path]) -> SplitFiles | None:
    """Return the files of a split from the first of `roots` that has any of them, or None.

    They may be in the root itself or up to two folders below, as torchvision keeps them in ROOT/EMNIST/raw. Of several
    such folders the one with both train and test is taken, so that the two are not of different partitions of EMNIST.
    """
    other: Split = "train" if split == "test" else "test"
    for root in roots:
        candidates = [_files(folder, table, split) for folder in _folders(root)]
        candidates = [files for files in candidates if files.images or files.labels or files.table]
        if candidates:
            return max(candidates, key=lambda files: (files.complete, _files(files.folder, table, other).complete))
    return None


FETCH = "`glyphpress data fetch` gets it, --data-root names another folder"


def _load_official(name: str, split: Split, roots: list[Path], names: tuple[str, ...], *, fix: str = FETCH) -> Dataset:
    """Read `SPLIT`, `SPLIT/train` or `SPLIT/test` as `load` describes them."""
    name, slash, file = name.partition("/")
    table, spec = emnist_split(name), f"emnist:{name}"
    if not slash:
        return load_split(table, split, roots, spec, names, fix=fix)
    files: dict[str, Split] = {"train": "train", "test": "test"}
    if file not in files:
        raise UnknownData(f"EMNIST's {name} has no file '{file}'; write {name}/train or {name}/test")
    every = load_split(table, files[file], roots, spec, fix=fix)
    # All classes are split before some are chosen, so that no image changes sides with the choice.
    every = every.choose(tuple(every.classes[label] for label in np.unique(every.labels)))
    test = held_out(every.images, every.labels, every.classes, TEST_SHARE)
    half = every.take(np.flatnonzero(test if split == "test" else ~test), split)
    half = replace(half, split=split, origin=f"{every.origin}/{split}")
    return half.choose(names) if names else half


def load_split(
    table: EmnistSplit, split: Split, roots: list[Path], spec: str, names: tuple[str, ...] = (), *, fix: str = FETCH
) -> Dataset:
    """Read one split. names: the classes to read, all without any. fix: the advice where its files are missing.

    Raises DataNotFound with the folders, CorruptData with file, offset and expectation, and UnknownData and EmptyData
    as `Dataset.choose` does.
    """
    classes = chosen_classes(names, table.classes, spec) if names else table.classes
    files = find_split(table, split, roots)
    stem = f"emnist-{table.name}-{split}"
    if files is None:
        searched = ", ".join(map(str, roots)) or "a cache, since you have no home"
        other: Split = "train" if split == "test" else "test"
        only, split_it = "", ""
        if find_split(table, other, roots):
            only, split_it = f", where the {other} split is", f", and {table.name}/{other} splits that file alone"
        kinds = f"{stem}-images-idx3-ubyte[.gz], {stem}.csv[.gz] or emnist-{table.name}.mat"
        raise DataNotFound(f"no {kinds} in or below {searched}{only}; {fix}{split_it}{_instead(roots)}")
    below = files.folder not in roots and files.folder.name not in {"gzip", "official", "raw"}
    which = brackets(classes) if classes != table.classes else ""
    origin = f"{spec}{which}/{split}" + (f" ({files.folder.name})" if below else "")
    if files.table and not (files.images and files.labels):
        return replace(_load_path(files.table, split, classes, table.name), origin=origin)
    if files.images is None or files.labels is None:
        missing = "images-idx3" if files.images is None else "labels-idx1"
        raise DataNotFound(f"{files.folder} lacks {stem}-{missing}-ubyte[.gz]; copy it beside the other file")
    check_mapping(table, files.folder)
    images = StreamedImages(files.images)
    labels = read_labels(files.labels, table, expected=len(images), images=files.images)
    if which:
        indices, labels = of_classes(labels, table.classes, classes, origin)
        images = images.subset(indices)
    return Dataset.of(images, labels, classes, origin, split)


def _instead(roots: list[Path]) -> str:
    """Return the advice to name a data file of another kind that lies in one of the folders, empty without any."""
    from calibration.data_file import data_files, has_mnist

    for root in filter(Path.is_dir, roots):
        if has_mnist(root):
            return f"; {root} itself, without a split, is MNIST's files"
        if others := data_files(root):
            return f"; or give {others[0]} itself"
    return ""


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
    return [folder for folder in _entries(parent) if folder.is_dir() and not folder.name.startswith(".")]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except PermissionError:
        # A folder that cannot be read is skipped.
        return []


def _files(folder: Path, table: EmnistSplit, split: Split) -> SplitFiles:
    stem = f"emnist-{table.name}-{split}"
    # Copies come with other capitals, such as emnist-Balanced-train.csv.
    there = {path.name.lower(): path for path in _entries(folder) if path.is_file()}

    def first(*names: str) -> Path | None:
        return next((there[name] for name in names if name in there), None)

    def file_of(kind: str) -> Path | None:
        return first(f"{stem}-{kind}-ubyte.gz", f"{stem}-{kind}-ubyte")

    return SplitFiles(
        folder,
        file_of("images-idx3"),
        file_of("labels-idx1"),
        first(f"{stem}.csv", f"{stem}.csv.gz", f"emnist-{table.name}.mat"),
    )

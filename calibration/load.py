"""Data sets by name, as `--data` takes them: the built-in digits, EMNIST's splits, and folders of pictures."""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from calibration import emnist
from calibration.choice import split_brackets
from calibration.dataset import Dataset, Images, Labels, Split
from calibration.errors import DataNotFound, UnknownData
from calibration.sample import held_out
from calibration.splits import SPLITS, emnist_split

DIGITS = "builtin:digits"
_TEST_SHARE = 1 / 3
"""600 test images can decide a margin of a few points; fewer cannot."""
_FORMS = f"{DIGITS}, emnist:SPLIT, DIR:SPLIT, or a folder of pictures with a subfolder a class"


def load(spec: str, split: Split = "test", data_root: Path | None = None) -> Dataset:
    """Load the data set that a spec names.

    spec: `builtin:digits`; `emnist:SPLIT`, looked up under `data_root`, $GLYPHPRESS_DATA, then the user cache;
    `DIR:SPLIT`, the same official files in or up to two levels below DIR; or `DIR`, a folder of pictures. Brackets
    after any of them choose classes, as in `emnist:byclass[A-Z]` (`calibration.choice`).
    Raises UnknownData, DataNotFound, CorruptData, EmptyData.
    """
    from calibration import pictures

    if Path(spec).is_dir():
        return pictures.load_folder(Path(spec), split)
    spec, names = split_brackets(spec)
    if spec == DIGITS:
        return digits(split).choose(names) if names else digits(split)
    folder, colon, name = spec.rpartition(":")
    if Path(spec).is_dir():
        return pictures.load_folder(Path(spec), split, names)
    if not colon:
        raise _unknown(spec)
    if folder == "builtin":
        raise UnknownData(f"there is no built-in data set '{name}'; did you mean {DIGITS}?")
    if folder == "emnist":
        return emnist.load_split(emnist_split(name), split, emnist.roots(data_root), spec, names)
    if not Path(folder).is_dir():
        raise DataNotFound(f"no folder {folder}; --data takes {_FORMS}")
    fix = "copy its files there, or give another folder"
    return emnist.load_split(emnist_split(name), split, [Path(folder)], f"emnist:{name}", names, fix=fix)


def load_or_why(spec: str, split: Split, data_root: Path | None = None) -> Dataset | DataNotFound:
    """Return the data set, or the error where the split is missing, for callers that can do without it (`required`)."""
    try:
        return load(spec, split, data_root)
    except DataNotFound as error:
        return error


def required(data: Dataset | DataNotFound, why: str) -> Dataset:
    """Return the data; raises DataNotFound where it is missing. why: end of the message, which says what needs it."""
    if isinstance(data, DataNotFound):
        raise DataNotFound(f"{data}; {why}") from data
    return data


def train_split(spec: str, data_root: Path | None, why: str) -> Dataset:
    """Return the train split of a spec; raises as `load` and `required` do."""
    return required(load_or_why(spec, "train", data_root), why)


def _unknown(spec: str) -> UnknownData | DataNotFound:
    if Path(spec).exists():
        return DataNotFound(f"{spec} is a file, not a folder; --data takes {_FORMS}")
    known = {DIGITS: DIGITS, "digits": DIGITS, "builtin": DIGITS, "emnist": "emnist:balanced"}
    known |= {name: f"emnist:{name}" for name in SPLITS} | {f"emnist{name}": f"emnist:{name}" for name in SPLITS}
    near = [known[match] for match in difflib.get_close_matches(spec.lower(), known, n=3)]
    if near and "/" not in spec:
        return UnknownData(
            f"no folder and no data set is called '{spec}'; did you mean {', '.join(dict.fromkeys(near))}?"
        )
    return DataNotFound(f"no folder {spec}; --data takes {_FORMS}")


@cache
def all_digits() -> tuple[Images, Labels]:
    """Return all 1,797 images, uint8 [N, 28, 28], and their labels.

    They are the test part of the UCI set "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998),
    8x8 pixels of 17 grays, as scikit-learn carries them. Raises DataNotFound when scikit-learn lacks the file.
    """
    from calibration.glyph import glyph

    table = np.loadtxt(_digits_file(), delimiter=",", dtype=np.uint8)
    scans = (table[:, :64].reshape(-1, 8, 8).astype(np.uint16) * 255 // 16).astype(np.uint8)
    return np.stack([glyph(scan) for scan in scans]), table[:, 64].astype(np.int64)


@cache
def digits(split: Split = "test") -> Dataset:
    """Return about 1,200 training or 600 test digits, always the same ones.

    The source does not say who wrote a digit, so one writer's digits may be in both splits.
    """
    images, labels = all_digits()
    classes = tuple("0123456789")
    test = held_out(images, labels, classes, _TEST_SHARE)
    keep = test if split == "test" else ~test
    return Dataset.of(images[keep], labels[keep], classes, f"{DIGITS}/{split}", split)


def _digits_file() -> Path:
    # sklearn.datasets.load_digits reads this file, but importing it takes more than a second.
    package = find_spec("sklearn")
    folders = list(package.submodule_search_locations or ()) if package else []
    for folder in folders:
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            return path
    raise DataNotFound(
        "scikit-learn's digits are not installed; `pip install --force-reinstall scikit-learn` installs them"
    )


@dataclass(frozen=True)
class Entry:
    """A known data set. train, test: numbers of images, as published. found: folder of each split that is here."""

    spec: str
    classes: tuple[str, ...]
    train: int
    test: int
    found: dict[str, str]

    def where(self) -> str:
        """Return where its files are, in a few words."""
        folders = sorted(set(self.found.values()))
        only = f" ({' '.join(self.found)} only)" if len(self.found) == 1 else ""
        return ", ".join(folders) + only if folders else "not here; `glyphpress data fetch` gets it"

    def line(self) -> str:
        """Return a line of a table with aligned columns."""
        return f"{self.spec:16} {len(self.classes):3} classes {self.train:9,} train {self.test:9,} test  {self.where()}"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return asdict(self)


def catalog(data_root: Path | None = None) -> list[Entry]:
    """Return the built-in digits and EMNIST's six splits, with the folders in which `load` finds them."""
    roots = emnist.roots(data_root)
    train, test = digits("train"), digits("test")
    built_in = {"train": "built in", "test": "built in"}
    entries = [Entry(DIGITS, test.classes, len(train), len(test), built_in)]
    for table in SPLITS.values():
        folders: dict[str, str] = {}
        splits: tuple[Split, Split] = ("train", "test")
        for split in splits:
            try:
                files = emnist.find(table, split, roots)
            except PermissionError as error:
                folders[split] = f"{error.filename}, which cannot be read"
                continue
            if files and files.complete:
                folders[split] = str(files.folder)
        entries.append(Entry(f"emnist:{table.name}", table.classes, table.train, table.test, folders))
    return entries

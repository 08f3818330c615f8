"""The words after `--data`, and the data set that they name."""

from __future__ import annotations

import difflib
from pathlib import Path

from calibration.builtin import DIGITS
from calibration.choice import parted
from calibration.dataset import Dataset, Split
from calibration.errors import DataNotFound, UnknownData
from calibration.splits import SPLITS, emnist_split

_FORMS = f"{DIGITS}, emnist:SPLIT, DIR:SPLIT, or a folder of pictures with a subfolder a class"


def load(spec: str, split: Split = "test", data_root: Path | None = None) -> Dataset:
    """Read what the words after `--data` name.

    spec: `builtin:digits`; `emnist:SPLIT`, looked up under `data_root`, $GLYPHPRESS_DATA, then the user cache;
    `DIR:SPLIT`, the same official files in or up to two levels below DIR; or `DIR`, a folder of pictures. Brackets
    behind any of them choose classes, as in `emnist:byclass[A-Z]` (`calibration.choice`).
    Raises UnknownData, DataNotFound, CorruptData, EmptyData.
    """
    from calibration import emnist, pictures
    from calibration.builtin import digits

    if Path(spec).is_dir():
        return pictures.load_folder(Path(spec), split)
    spec, names = parted(spec)
    if spec == DIGITS:
        return digits(split).choose(names) if names else digits(split)
    place, colon, name = spec.rpartition(":")
    if Path(spec).is_dir():
        return pictures.load_folder(Path(spec), split, names)
    if not colon:
        raise _not_known(spec)
    if place == "builtin":
        raise UnknownData(f"there is no built-in data set '{name}'; did you mean {DIGITS}?")
    if place == "emnist":
        return emnist.load_split(emnist_split(name), split, emnist.roots(data_root), spec, names)
    if not Path(place).is_dir():
        raise DataNotFound(f"no folder {place}; --data takes {_FORMS}")
    fix = "copy its files there, or give another folder"
    return emnist.load_split(emnist_split(name), split, [Path(place)], f"emnist:{name}", names, fix=fix)


def load_or_why(spec: str, split: Split, data_root: Path | None = None) -> Dataset | DataNotFound:
    """Return what `load` does, or its error where the split is not there, for what may do without it (`required`)."""
    try:
        return load(spec, split, data_root)
    except DataNotFound as error:
        return error


def required(data: Dataset | DataNotFound, why: str) -> Dataset:
    """Return the data; raises DataNotFound, ending in `why` it is needed and what does without, where it is missing."""
    if isinstance(data, DataNotFound):
        raise DataNotFound(f"{data}; {why}") from data
    return data


def train_split(spec: str, data_root: Path | None, why: str) -> Dataset:
    """Return the train split of what `load` takes; raises as that does, and as `required` where there is none."""
    return required(load_or_why(spec, "train", data_root), why)


def _not_known(spec: str) -> UnknownData | DataNotFound:
    if Path(spec).exists():
        return DataNotFound(f"{spec} is a file, not a folder; --data takes {_FORMS}")
    known = {DIGITS: DIGITS, "digits": DIGITS, "builtin": DIGITS, "emnist": "emnist:balanced"}
    known |= {name: f"emnist:{name}" for name in SPLITS} | {f"emnist{name}": f"emnist:{name}" for name in SPLITS}
    near = [known[word] for word in difflib.get_close_matches(spec.lower(), known, n=3)]
    if near and "/" not in spec:
        return UnknownData(
            f"no folder and no data set is called '{spec}'; did you mean {', '.join(dict.fromkeys(near))}?"
        )
    return DataNotFound(f"no folder {spec}; --data takes {_FORMS}")

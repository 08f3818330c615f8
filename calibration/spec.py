"""What a spec of data names: one of EMNIST's six splits, and chosen classes in brackets (`emnist:byclass[A-Z]`).

The splits are those that NIST publishes (Cohen et al. 2017, arXiv:1702.05373, and the data set's page). Their files
store images transposed: pixel (row, column) of the glyph is at (column, row).

A choice of classes, also that of --classes, is characters and ranges of digits or letters of one case (`0-9A-Z`), or
names separated by commas (`cat,dog`). Their order is the order of the labels.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from string import ascii_lowercase, ascii_uppercase, digits

from calibration.errors import UnknownData

# Lower-case letters that are classes of their own in the merged splits, since their capitals look different.
_LOWER_CLASSES = "abdefghnqrt"


@dataclass(frozen=True)
class EmnistSplit:
    """One split: the meaning of its labels, and NIST's numbers of images.

    classes: the character of each class; where the mapping merges both cases, the capital, which is its first code.
    label_offset: the label stored for class 0 (1 for letters, else 0).
    train, test: official numbers of images. balanced: whether all classes officially have equally many images.
    """

    name: str
    classes: tuple[str, ...]
    train: int
    test: int
    label_offset: int = 0
    balanced: bool = False


SPLITS = {
    split.name: split
    for split in (
        EmnistSplit("byclass", tuple(digits + ascii_uppercase + ascii_lowercase), 697_932, 116_323),
        EmnistSplit("bymerge", tuple(digits + ascii_uppercase + _LOWER_CLASSES), 697_932, 116_323),
        EmnistSplit("balanced", tuple(digits + ascii_uppercase + _LOWER_CLASSES), 112_800, 18_800, balanced=True),
        EmnistSplit("letters", tuple(ascii_uppercase), 124_800, 20_800, label_offset=1, balanced=True),
        EmnistSplit("digits", tuple(digits), 240_000, 40_000, balanced=True),
        EmnistSplit("mnist", tuple(digits), 60_000, 10_000),
    )
}


def emnist_split(name: str) -> EmnistSplit:
    """Return the split called `name`; raises UnknownData with the nearest names."""
    if name not in SPLITS:
        near = difflib.get_close_matches(name.lower(), SPLITS, n=3)
        advice = f"did you mean {', '.join(near)}?" if near else "`glyphpress data list` shows them"
        raise UnknownData(f"EMNIST has no split '{name}'; {advice}")
    return SPLITS[name]


_EXAMPLE = "write it as 0-9A-Z or cat,dog"
_LISTED = 10
_FEWEST_IN_A_RANGE = 3
_KINDS = (r"[0-9]", r"[A-Z]", r"[a-z]")
_RANGE = "|".join(f"{kind}-{kind}" for kind in _KINDS)


def split_brackets(spec: str) -> tuple[str, tuple[str, ...]]:
    """Return a spec without its brackets, and the classes in them; no classes where there are no brackets.

    Raises UnknownData for brackets that choose nothing, or a class twice.
    """
    before, bracket, text = spec.rpartition("[")
    if not bracket or not spec.endswith("]"):
        return spec, ()
    names = class_names(text[:-1])
    base, within = split_brackets(before)
    return base, chosen_classes(names, within, base) if within else names


def with_classes(spec: str, names: tuple[str, ...]) -> str:
    """Return a spec with the chosen classes in brackets; unchanged without names."""
    return f"{spec}{brackets(names)}"


def class_names(text: str) -> tuple[str, ...]:
    """Return the classes that a text names, in its order; raises UnknownData for an empty or repeated name."""
    if "," in text:
        parts = [_expanded(name.strip()) for name in text.split(",")]
        names = tuple(name for part in parts for name in part)
    else:
        names = tuple(name for part in re.findall(f"{_RANGE}|.", text, re.DOTALL) for name in _expanded(part))
    if not names or "" in names:
        raise UnknownData(f"the choice of classes '{text}' has an empty name; {_EXAMPLE}")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UnknownData(f"the choice of classes '{text}' names '{twice}' twice; name each class once")
    return names


def _expanded(name: str) -> tuple[str, ...]:
    """Return all classes of a range such as `0-9`, or the name itself."""
    if not re.fullmatch(_RANGE, name):
        return (name,)
    first, last = ord(name[0]), ord(name[2])
    if first > last:
        raise UnknownData(f"the range of classes '{name}' runs backwards; write {name[2]}-{name[0]}")
    return tuple(map(chr, range(first, last + 1)))


def chosen_classes(names: tuple[str, ...], classes: tuple[str, ...], data: str) -> tuple[str, ...]:
    """Return the classes of the data set `data` that the names choose, in the order of the names.

    Where no letter of the data set is there in both cases, as in EMNIST's letters, either case chooses it. Raises
    UnknownData with the names that are missing.
    """
    by_name = {name.casefold(): name for name in classes}
    by_name = (by_name if len(by_name) == len(classes) else {}) | {name: name for name in classes}
    classes_found = [by_name.get(name) or by_name.get(name.casefold(), "") for name in names]
    if missing := [name for name, known in zip(names, classes_found, strict=True) if not known]:
        raise UnknownData(f"{data} has no class {_listed(missing)}; it has {classes_text(classes)}")
    if len(set(classes_found)) < len(classes_found):
        raise UnknownData(f"{data} has both cases of a letter in one class; name each of {_listed(names)} once")
    return tuple(classes_found)


def advice(names: tuple[str, ...], classes: tuple[str, ...]) -> str:
    """Return the advice for a model with classes `names` and data with `classes`: choose them where data has them."""
    try:
        return f"choose the model's classes with --classes {classes_text(chosen_classes(names, classes, ''))}"
    except UnknownData:
        return "give the data set that the model was trained for"


def _listed(names: tuple[str, ...] | list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(f"'{name}'" for name in names[:_LISTED]) + more


def classes_text(names: tuple[str, ...]) -> str:
    """Return the shortest text that chooses these classes, in their order: `0-9A-Z`, or `cat,dog`."""
    if any(len(name) > 1 for name in names) or "-" in names:
        return ",".join(names)
    # Runs of consecutive characters of one kind become ranges.
    runs: list[list[str]] = []
    for name in names:
        if runs and _follows(runs[-1][-1], name):
            runs[-1].append(name)
        else:
            runs.append([name])
    return "".join(f"{run[0]}-{run[-1]}" if len(run) >= _FEWEST_IN_A_RANGE else "".join(run) for run in runs)


def _follows(first: str, second: str) -> bool:
    return ord(first) + 1 == ord(second) and any(re.fullmatch(kind * 2, first + second) for kind in _KINDS)


def brackets(names: tuple[str, ...]) -> str:
    """Return the classes in brackets, as `[0-9A-Z]`; empty without names."""
    return f"[{classes_text(names)}]" if names else ""

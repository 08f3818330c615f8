"""A choice of classes: the words in brackets after a data set's name, as in `emnist:byclass[A-Z]`, or of --classes.

The words are characters and ranges of digits or letters of one case (`0-9A-Z`), or names with commas between them
(`cat,dog`). Their order is the order of the labels.
"""

from __future__ import annotations

import re

from calibration.errors import UnknownData

_EXAMPLE = "write it as 0-9A-Z or cat,dog"
_LISTED = 10
_FEWEST_IN_A_RANGE = 3
_KINDS = (r"[0-9]", r"[A-Z]", r"[a-z]")
_RANGE = "|".join(f"{kind}-{kind}" for kind in _KINDS)


def parted(spec: str) -> tuple[str, tuple[str, ...]]:
    """Return the name of a data set without its brackets, and the classes in them; none where there are no brackets.

    Raises UnknownData for brackets that choose nothing or a class twice.
    """
    before, bracket, words = spec.rpartition("[")
    if not bracket or not spec.endswith("]"):
        return spec, ()
    names = class_names(words[:-1])
    base, within = parted(before)
    return base, chosen(names, within, base) if within else names


def narrowed(spec: str, names: tuple[str, ...]) -> str:
    """Return the name of a data set with its classes chosen in brackets; unchanged without names."""
    return f"{spec}{brackets(names)}"


def class_names(words: str) -> tuple[str, ...]:
    """Return the classes that the words name, in their order; raises UnknownData where one is empty or named twice."""
    if "," in words:
        parts = [_ranged(name.strip()) for name in words.split(",")]
        names = tuple(name for part in parts for name in part)
    else:
        names = tuple(name for part in re.findall(f"{_RANGE}|.", words, re.DOTALL) for name in _ranged(part))
    if not names or "" in names:
        raise UnknownData(f"the choice of classes '{words}' has an empty name; {_EXAMPLE}")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UnknownData(f"the choice of classes '{words}' names '{twice}' twice; name each class once")
    return names


def _ranged(word: str) -> tuple[str, ...]:
    """Return every class of a range such as `0-9`, or the word alone."""
    if not re.fullmatch(_RANGE, word):
        return (word,)
    first, last = ord(word[0]), ord(word[2])
    if first > last:
        raise UnknownData(f"the range of classes '{word}' runs backwards; write {word[2]}-{word[0]}")
    return tuple(map(chr, range(first, last + 1)))


def chosen(names: tuple[str, ...], classes: tuple[str, ...], data: str) -> tuple[str, ...]:
    """Return the classes of the data set `data` that the names mean, in the order of the names.

    Where the data set has no letter in both cases, as EMNIST's letters, either case means it.
    Raises UnknownData that names what is missing.
    """
    meant = {name.casefold(): name for name in classes}
    meant = (meant if len(meant) == len(classes) else {}) | {name: name for name in classes}
    found = [meant.get(name) or meant.get(name.casefold(), "") for name in names]
    if missing := [name for name, known in zip(names, found, strict=True) if not known]:
        raise UnknownData(f"{data} has no class {_listed(missing)}; it has {words_for(classes)}")
    if len(set(found)) < len(found):
        raise UnknownData(f"{data} has both cases of a letter in one class; name each of {_listed(names)} once")
    return tuple(found)


def advice(names: tuple[str, ...], classes: tuple[str, ...]) -> str:
    """Return what to do about a model that reads `names` and data with `classes`: choose them where they are there."""
    try:
        return f"choose the model's classes with --classes {words_for(chosen(names, classes, ''))}"
    except UnknownData:
        return "give the data that it was trained for"


def _listed(names: tuple[str, ...] | list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(f"'{name}'" for name in names[:_LISTED]) + more


def words_for(names: tuple[str, ...]) -> str:
    """Return the shortest words that choose the names, in their order: `0-9A-Z`, or `cat,dog`."""
    if any(len(name) > 1 for name in names) or "-" in names:
        return ",".join(names)
    # A run of neighbours of one kind becomes a range.
    runs: list[list[str]] = []
    for name in names:
        if runs and _follows(runs[-1][-1], name):
            runs[-1].append(name)
        else:
            runs.append([name])
    return "".join(f"{run[0]}-{run[-1]}" if len(run) >= _FEWEST_IN_A_RANGE else "".join(run) for run in runs)


def _follows(one: str, other: str) -> bool:
    return ord(one) + 1 == ord(other) and any(re.fullmatch(kind * 2, one + other) for kind in _KINDS)


def brackets(names: tuple[str, ...]) -> str:
    """Return `[0-9A-Z]`, or nothing for no names."""
    return f"[{words_for(names)}]" if names else ""

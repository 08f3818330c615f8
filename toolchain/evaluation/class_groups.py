"""Groups of classes that people ask about: digits, upper and lower case, and characters that look alike."""

from __future__ import annotations

from dataclasses import dataclass
from string import ascii_lowercase, ascii_uppercase, digits

import numpy as np
from numpy.typing import NDArray

from toolchain.stats.share import wilson

Counts = NDArray[np.int64]

KINDS = {"digits": digits, "uppercase": ascii_uppercase, "lowercase": ascii_lowercase}
ASKED_ABOUT = ("0Oo", "1Il", "5S", "Cc", "Kk", "bd", "pq", "MW")
"""Look-alikes that people ask about; of each group the members that the classes hold."""


@dataclass(frozen=True)
class GroupMetrics:
    """How well the images of some classes are read.

    name: of the group. members: its classes. right: images whose class was answered. within: images that were read as
    another member of the group. interval: the two-sided 95 % score interval of `accuracy`.
    """

    name: str
    members: tuple[str, ...]
    images: int
    right: int
    within: int
    accuracy: float
    interval: tuple[float, float]


def class_of(character: str, classes: tuple[str, ...]) -> int | None:
    """Return the class that holds a character: its own, else that of its other case, which EMNIST merges with it."""
    return next((classes.index(label) for label in (character, character.swapcase()) if label in classes), None)


def members_of(characters: str, classes: tuple[str, ...]) -> frozenset[int]:
    """Return the classes that hold any of the characters (`class_of`)."""
    return frozenset(k for k in (class_of(character, classes) for character in characters) if k is not None)


def kinds(confusion: Counts, classes: tuple[str, ...]) -> tuple[GroupMetrics, ...]:
    """Return digits, upper and lower case apart, where the classes are of more than one kind."""
    members = {name: [k for k, label in enumerate(classes) if label in kind] for name, kind in KINDS.items()}
    there = {name: group for name, group in members.items() if confusion[group].sum()}
    return _measured(there, confusion, classes) if len(there) > 1 else ()


def look_alikes(confusion: Counts, classes: tuple[str, ...]) -> tuple[GroupMetrics, ...]:
    """Return each group of look-alikes of which the classes hold at least two members with images."""
    groups = [sorted(members_of(characters, classes)) for characters in ASKED_ABOUT]
    there = {"/".join(classes[k] for k in group): group for group in groups if confusion[group].any(1).sum() > 1}
    return _measured(there, confusion, classes)


def _measured(groups: dict[str, list[int]], confusion: Counts, classes: tuple[str, ...]) -> tuple[GroupMetrics, ...]:
    measured = []
    for name, group in groups.items():
        among = confusion[np.ix_(group, group)]
        images, right = int(confusion[group].sum()), int(np.trace(among))
        labels = tuple(classes[k] for k in group)
        within = int(among.sum()) - right
        measured.append(GroupMetrics(name, labels, images, right, within, right / images, wilson(right, images)))
    return tuple(measured)

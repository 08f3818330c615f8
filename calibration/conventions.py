"""Settles what a data file leaves open: what its labels stand for, how its images stand, and which side is ink.

All of it is found by looking at the images, and said. What cannot be told is asked for, never guessed: `FILE:HINTS`
names EMNIST's split, whose classes the labels number, or the turn that the stored images show, or both
(`digits.csv:digits,upright`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_uppercase, digits

import numpy as np

from calibration.dataset import SIDE, Dataset, Images, Labels, Split, chunks
from calibration.errors import CorruptData, EmptyData, UnknownData
from calibration.orientation import TURNS, UNDONE_BY, looks
from calibration.spec import SPLITS, EmnistSplit, classes_text
from calibration.stored import Stored

_BY_RANGE = {
    (0, 9): ("the digits", tuple(digits)),
    (0, 25): ("the letters A to Z", tuple(ascii_uppercase)),
    (1, 26): ("the letters A to Z", tuple(ascii_uppercase)),
    (0, 35): ("0 to 9 and A to Z", tuple(digits + ascii_uppercase)),
    (0, 46): ("the classes of balanced", SPLITS["balanced"].classes),
    (0, 61): ("the classes of byclass", SPLITS["byclass"].classes),
}
"""First and last label -> what they number, where a file says nothing."""
_SCAN_LEVELS = 16
"""Largest value of the 8x8 digits, whose levels are counts of pixels."""
ALONE = "alone"
_HINTS = f"a split of EMNIST ({', '.join(SPLITS)}), {ALONE}, or how the images stand ({', '.join(TURNS)})"


@dataclass(frozen=True)
class Hints:
    """What the user says of a file. alone: it is a whole data set, and its images are split into train and test."""

    split: EmnistSplit | None = None
    turn: str = ""
    alone: bool = False

    @classmethod
    def of(cls, text: str) -> Hints:
        """Return the hints of `HINT,HINT`; raises UnknownData."""
        hints = cls()
        for word in filter(None, text.split(",")):
            if word in SPLITS:
                hints = replace(hints, split=SPLITS[word])
            elif word in TURNS:
                hints = replace(hints, turn=word)
            elif word == ALONE:
                hints = replace(hints, alone=True)
            else:
                raise UnknownData(f"'{word}' says nothing about a data file; write {_HINTS}")
        return hints


def settled(stored: Stored, path: Path, hints: Hints, *, usual: str = "", origin: str, split: Split) -> Dataset:
    """Return the data set: upright glyphs, bright ink on black, and labels from 0.

    usual: the turn of such files by their format, which stands where the images do not show it; empty for none.
    Raises CorruptData for labels beyond the classes, UnknownData with the hint that is missing.
    """
    labels, classes, meaning = _labels(stored, path, hints.split)
    images, changes = _glyphs(stored, path)
    turn, reason = _turn(images, labels, classes, path, hints=hints, usual=usual)
    if turn != "upright":
        _put_upright(images, turn)
    side = stored.images.shape[1]
    found = f"{path.name}: {len(labels):,} images of {side}x{side}, {reason}; {meaning}"
    return replace(Dataset.of(images, labels, classes, origin, split), found="; ".join([found, *changes]))


def _labels(stored: Stored, path: Path, split: EmnistSplit | None) -> tuple[Labels, tuple[str, ...], str]:
    """Return labels from 0, the classes, and a phrase about both."""
    low, high = int(stored.labels.min()), int(stored.labels.max())
    run = f"labels {low} to {high}"
    if low == high:
        raise EmptyData(
            f"{path} holds a single class, label {low}, and two or more are needed; a table has its label in the first "
            "column"
        )
    if split:
        # Copies number the classes from 0 or from 1, whatever NIST does; as many numbers as classes leave no doubt.
        first = low if low in (0, 1) and high - low + 1 == len(split.classes) else split.label_offset
        classes, meaning = split.classes, f"the classes of {split.name}"
    elif stored.classes:
        first, classes, meaning = 0, stored.classes, "the classes that the file names"
    elif known := _BY_RANGE.get((low, high)):
        first, (meaning, classes) = low, known
    else:
        raise UnknownData(
            f"{path}: its labels run from {low} to {high}, from which their classes cannot be told; "
            f"write {path}:SPLIT with the split of EMNIST that they number, such as {path}:balanced"
        )
    last = first + len(classes) - 1
    if low < first or high > last:
        index = int(np.flatnonzero((stored.labels < first) | (stored.labels > last))[0])
        raise CorruptData(
            f"{path}, {stored.place(index)}: expected a label from {first} to {last} ({meaning}), found "
            f"{stored.labels[index]}; is it another split's file?"
        )
    return stored.labels - first, classes, f"{run} are {meaning} ({classes_text(classes)})"


def _glyphs(stored: Stored, path: Path) -> tuple[Images, list[str]]:
    """Return the images as uint8 [N, 28, 28], bright ink on black, and what was changed for that.

    Those of the right size are changed in place: a large set has no room for a second one.
    """
    images, changes = stored.images, []
    brightest = int(images.max(initial=0))
    if brightest in (1, _SCAN_LEVELS):
        changes.append(f"values 0 to {brightest} scaled to 255")
        levels = np.round(np.arange(brightest + 1) * (255 / brightest)).astype(np.uint8)
        for part in chunks(len(images)):
            images[part] = levels[images[part]]
    corners = np.concatenate([images[part][:, [0, 0, -1, -1], [0, -1, 0, -1]] for part in chunks(len(images))])
    if np.median(corners) > 127:
        changes.append("dark ink on light, inverted")
        np.subtract(255, images, out=images)
    if images.shape[1:] != (SIDE, SIDE):
        changes.append(f"resized to {SIDE}x{SIDE}")
        images = _resized(images, stored, path)
    return images, changes


def _resized(images: Images, stored: Stored, path: Path) -> Images:
    from calibration.glyph import glyph

    glyphs = np.empty((len(images), SIDE, SIDE), np.uint8)
    for index, image in enumerate(images):
        try:
            glyphs[index] = glyph(image)
        except CorruptData as error:
            raise CorruptData(f"{path}, {stored.place(index)}: {error}") from error
    return glyphs


def _turn(
    images: Images, labels: Labels, classes: tuple[str, ...], path: Path, *, hints: Hints, usual: str
) -> tuple[str, str]:
    """Return how the images stand, and a phrase about why."""
    if hints.turn:
        return hints.turn, f"orientation {hints.turn}, as you say"
    seen = looks(images, labels, classes)
    if seen:
        other = f"; such files usually have {usual}" if usual and usual != seen.looks else ""
        return seen.looks, f"orientation {seen.looks} ({seen.votes[seen.looks]:.0%} of the votes{other})"
    if usual:
        return usual, f"orientation {usual}, as such files have it (the images do not show it)"
    spec = f"{path}:{hints.split.name}," if hints.split else f"{path}:"
    raise UnknownData(
        f"{path}: its images do not show how they stand; write {spec}upright, or {spec}transpose where rows and "
        "columns are exchanged, as in EMNIST's own files"
    )


def _put_upright(images: Images, turn: str) -> None:
    """Undo a turn in place, a block at a time."""
    undo = TURNS[UNDONE_BY.get(turn, turn)]
    for part in chunks(len(images)):
        images[part] = undo(images[part].copy())

"""The orientation of glyphs, one of eight, found by a vote.

Glyphs are compared with upright references: the built-in handwritten digits, and letters printed with the font inside
Pillow, both converted by `glyph`; none is from EMNIST. A glyph votes for the turn in which it is most similar to a
reference of its class, so symmetric letters spread their votes and the others decide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from string import ascii_letters, digits
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from calibration.builtin import all_digits
from calibration.dataset import SIDE, Dataset, Images, ImageSource, Labels
from calibration.glyph import glyph

Features = NDArray[np.float32]

TURNS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "upright": lambda x: x,
    "mirror": lambda x: x[:, :, ::-1],
    "flip": lambda x: x[:, ::-1, :],
    "rot180": lambda x: x[:, ::-1, ::-1],
    "transpose": lambda x: x.swapaxes(1, 2),
    "rot90": lambda x: x.swapaxes(1, 2)[:, ::-1, :],
    "rot270": lambda x: x.swapaxes(1, 2)[:, :, ::-1],
    "anti-transpose": lambda x: x.swapaxes(1, 2)[:, ::-1, ::-1],
}
"""Turns of upright glyphs, by their names in `targets.preprocess` (`rot90` is counter-clockwise)."""

UNDONE_BY = {"rot90": "rot270", "rot270": "rot90"}
"""Turn -> its inverse; all other turns are their own inverse."""

_SLANTS = (0.0, 0.2, 0.4)
_COMPARED = 400
_SURE_ABOVE = 0.99
_DRAWS = 4000
_ALIKE = 2.5
"""How often more than by chance an image must be most like its own class."""


@dataclass(frozen=True)
class Orientation:
    """The orientation of glyphs by a vote.

    looks: the turn with most votes. votes: share of the compared images by turn. images: number of compared images.
    confidence: probability that `looks` would get most votes of all such images (flat Dirichlet prior on the shares).
    """

    looks: str
    votes: dict[str, float]
    images: int
    confidence: float

    @property
    def sure(self) -> bool:
        """Whether the votes decide it."""
        return self.confidence >= _SURE_ABOVE

    def __str__(self) -> str:
        """Return the result in one line."""
        (first, share), (second, less) = sorted(self.votes.items(), key=lambda vote: -vote[1])[:2]
        sure = "over 99.9%" if self.confidence > 0.999 else f"{self.confidence:.1%}"
        return (
            f"{first} by {share:.0%} of the votes, next {second} {less:.0%} "
            f"({self.images} images compared, {sure} sure)"
        )


def orientation(data: Dataset, seed: int = 0) -> Orientation | None:
    """Return the orientation of the images, or None when no class is a digit or a Latin letter.

    About 400 images are compared, about equally many of each class. They must be bright ink on dark.
    """
    return _vote(data.classes, _compared(data.images, data.labels, data.classes, seed))


def looks(images: ImageSource, labels: Labels, classes: tuple[str, ...], seed: int = 0) -> Orientation | None:
    """Return the orientation where the votes decide it and the images look like their classes, else None.

    Pictures of clothes that are numbered 0 to 9 are compared with digits in vain: their votes may agree by chance, but
    turned upright they are no more like their class than like the others.
    """
    compared = _compared(images, labels, classes, seed)
    result = _vote(classes, compared)
    if result is None or not result.sure:
        return None
    undo = TURNS[UNDONE_BY.get(result.looks, result.looks)]
    references = [_reference(_written_as(classes[label], classes)) for label in compared]
    owners = np.repeat(list(compared), [len(reference) for reference in references])
    every = np.concatenate(references)
    right = 0
    for label, chosen in compared.items():
        nearest = (undo(_features(chosen)).reshape(len(chosen), -1) @ every.T).argmax(1)
        right += int((owners[nearest] == label).sum())
    return result if right / result.images > _ALIKE / len(compared) else None


def _compared(images: ImageSource, labels: Labels, classes: tuple[str, ...], seed: int) -> dict[int, Images]:
    """Return about 400 images by their label, about equally many of each class that is a digit or a Latin letter."""
    rng = np.random.default_rng(seed)
    known = [label for label, name in enumerate(classes) if name in (*digits, *ascii_letters)]
    compared = {}
    for label in known:
        chosen = rng.permutation(np.flatnonzero(labels == label))[: -(-_COMPARED // len(known))]
        if len(chosen):
            compared[label] = images[chosen]
    return compared


def _vote(classes: tuple[str, ...], compared: dict[int, Images]) -> Orientation | None:
    best = [_best_turn(images, _reference(_written_as(classes[label], classes))) for label, images in compared.items()]
    if not best:
        return None
    counts = np.bincount(np.concatenate(best), minlength=len(TURNS))
    total = int(counts.sum())
    winner = int(counts.argmax())
    # A generator of its own keeps the answer the same whoever drew before.
    confidence = float((np.random.default_rng(total).dirichlet(counts + 1, _DRAWS).argmax(1) == winner).mean())
    votes = {name: int(count) / total for name, count in zip(TURNS, counts, strict=True)}
    return Orientation(list(TURNS)[winner], votes, total, confidence)


def _best_turn(images: Images, reference: Features) -> NDArray[np.int64]:
    """Return for each image the index of the turn whose inverse makes it most similar to a reference."""
    features = _features(images)
    # Blurring and scaling are the same in every direction, so features turn as images do.
    undone = np.stack([TURNS[UNDONE_BY.get(name, name)](features) for name in TURNS])
    similarity = undone.reshape(-1, SIDE * SIDE) @ reference.T
    turns: NDArray[np.int64] = similarity.max(1).reshape(len(TURNS), -1).argmax(0).astype(np.int64)
    return turns


def _features(images: Images) -> Features:
    """Return float32 [N, 28, 28], slightly blurred and normalised glyphs, whose dot products are correlations."""
    pixels = images.astype(np.float32)
    for axis in (1, 2):
        near = [np.roll(pixels, shift, axis) * weight for shift, weight in ((-2, 1), (-1, 2), (0, 3), (1, 2), (2, 1))]
        pixels = sum(near[1:], near[0])
    pixels -= pixels.mean((1, 2), keepdims=True)
    unit: Features = pixels / np.maximum(np.sqrt((pixels**2).sum((1, 2), keepdims=True)), 1e-6)
    return unit


def _written_as(name: str, classes: tuple[str, ...]) -> tuple[str, ...]:
    """Return both cases of a letter where they share a class, as in EMNIST's merged splits."""
    other = name.swapcase()
    return (name,) if other == name or other in classes else (name, other)


@cache
def _reference(characters: tuple[str, ...]) -> Features:
    """Return float32 [references, 784] of upright examples of any of the characters."""
    images, labels = all_digits()
    examples = [images[labels == int(char)] if char in digits else _printed(char) for char in characters]
    return _features(np.concatenate(examples)).reshape(-1, SIDE * SIDE)


def _printed(char: str) -> Images:
    """Return a printed letter as glyphs at the slants of handwriting."""
    font = ImageFont.load_default(3 * SIDE)
    page = Image.new("L", (8 * SIDE, 6 * SIDE), 255)
    ImageDraw.Draw(page).text((3 * SIDE, SIDE), char, font=font, fill=0)
    middle = 3 * SIDE
    slanted = [
        page.transform(page.size, Image.Transform.AFFINE, (1, s, -s * middle, 0, 1, 0), fillcolor=255) for s in _SLANTS
    ]
    return np.stack([glyph(scan) for scan in slanted])

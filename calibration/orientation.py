"""Which of the eight ways round do glyphs stand? Told by comparing them with references that are known to be upright.

References: the built-in handwritten digits, and letters printed with the font inside Pillow; both go through `glyph`.
No image of EMNIST is among them. A glyph votes for the turn in which it is most like a reference of its own class, so
letters that are symmetric spread their votes and the others decide.
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

from calibration.dataset import SIDE, Dataset, Images
from calibration.glyph import glyph
from calibration.load import all_digits

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
"""What was done to upright glyphs, by the names that `targets.preprocess` gives them (`rot90` is counter-clockwise)."""

UNDONE_BY = {"rot90": "rot270", "rot270": "rot90"}
"""Every other turn undoes itself."""

_SLANTS = (0.0, 0.2, 0.4)
_ENOUGH = 400
_SURE = 0.99
_DRAWS = 4000


@dataclass(frozen=True)
class Orientation:
    """How glyphs seem to stand.

    looks: the turn with most votes. votes: share of the compared images, by turn. images: how many were compared.
    confidence: probability that `looks` would get most votes of all such images (flat Dirichlet prior on the shares).
    """

    looks: str
    votes: dict[str, float]
    images: int
    confidence: float

    @property
    def sure(self) -> bool:
        """Whether the votes decide it."""
        return self.confidence >= _SURE

    def __str__(self) -> str:
        """Say it in a line."""
        (first, share), (second, less) = sorted(self.votes.items(), key=lambda vote: -vote[1])[:2]
        sure = "over 99.9%" if self.confidence > 0.999 else f"{self.confidence:.1%}"
        return (
            f"{first} by {share:.0%} of the votes, next {second} {less:.0%} "
            f"({self.images} images compared, {sure} sure)"
        )


def orientation(data: Dataset, seed: int = 0) -> Orientation | None:
    """Return how the images stand, or None when no class is a digit or a Latin letter, so nothing can be compared.

    About 400 images are compared, about as many of each class. The images must be bright ink on dark.
    """
    rng = np.random.default_rng(seed)
    known = [label for label, name in enumerate(data.classes) if name in (*digits, *ascii_letters)]
    best: list[NDArray[np.int64]] = []
    for label in known:
        members = np.flatnonzero(data.labels == label)
        chosen = rng.permutation(members)[: -(-_ENOUGH // len(known))]
        reference = _reference(_written_as(data.classes[label], data.classes))
        best.append(_best_turn(data.images[chosen], reference))
    counts = np.bincount(np.concatenate(best), minlength=len(TURNS)) if best else np.zeros(len(TURNS), np.int64)
    total = int(counts.sum())
    if not total:
        return None
    winner = int(counts.argmax())
    confidence = float((rng.dirichlet(counts + 1, _DRAWS).argmax(1) == winner).mean())
    votes = {name: int(count) / total for name, count in zip(TURNS, counts, strict=True)}
    return Orientation(list(TURNS)[winner], votes, total, confidence)


def _best_turn(images: Images, reference: Features) -> NDArray[np.int64]:
    """Return for each image the index of the turn that, undone, brings it closest to any reference."""
    if not len(images):
        return np.empty(0, np.int64)
    features = _features(images)
    # Blurring and scaling treat every direction alike, so features turn as images do.
    undone = np.stack([TURNS[UNDONE_BY.get(name, name)](features) for name in TURNS])
    likeness = undone.reshape(-1, SIDE * SIDE) @ reference.T
    turns: NDArray[np.int64] = likeness.max(1).reshape(len(TURNS), -1).argmax(0).astype(np.int64)
    return turns


def _features(images: Images) -> Features:
    """Return float32 [N, 28, 28] of slightly blurred glyphs, whose products are their correlations."""
    pixels = images.astype(np.float32)
    for axis in (1, 2):
        near = [np.roll(pixels, shift, axis) * weight for shift, weight in ((-2, 1), (-1, 2), (0, 3), (1, 2), (2, 1))]
        pixels = sum(near[1:], near[0])
    pixels -= pixels.mean((1, 2), keepdims=True)
    unit: Features = pixels / np.maximum(np.sqrt((pixels**2).sum((1, 2), keepdims=True)), 1e-6)
    return unit


def _written_as(name: str, classes: tuple[str, ...]) -> tuple[str, ...]:
    """Return both cases of a letter when they share a class, as EMNIST's merged splits have it."""
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

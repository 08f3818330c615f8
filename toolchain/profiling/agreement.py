"""Whether a file gives the same answers on one target as on another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.load import load
from targets.session import Session

IMAGES = 64
"""Real digits of the built-in set: enough to exercise every logit, few enough for an emulated processor."""
TOLERANCE = 1e-4
"""Relative to the largest logit, at least 1: the difference that another order of float32 sums makes."""


@dataclass(frozen=True)
class Agreement:
    """The same images in two places: how many answers differ, and the largest difference of a logit.

    scale: the largest logit there is, in the place that is compared with, `reference`.
    """

    reference: str
    images: int
    differing: int
    largest: float
    scale: float

    @property
    def match(self) -> bool:
        """Whether every answer is the same, and no logit differs by more than rounding does."""
        return not self.differing and self.largest <= TOLERANCE * max(1.0, self.scale)

    def __str__(self) -> str:
        """Return one line for people."""
        if not self.largest:
            return "outputs match to the bit"
        if self.match:
            return f"outputs match ({self.largest:.0e})"
        if not self.differing:
            return f"same answers, logits differ by {self.largest:.2g}"
        return f"OUTPUTS DIFFER: {self.differing} of {self.images} answers"


def glyphs() -> NDArray[np.uint8]:
    """Return the images that places are compared on, uint8 [IMAGES, 28, 28]."""
    return load("builtin:digits", "test").images[:IMAGES]


def agreement(answering: Session, reference: Session, images: NDArray[np.uint8] | None = None) -> Agreement:
    """Compare two sessions of one file on images, by default `glyphs`; raises RunFailed as they do."""
    images = glyphs() if images is None else images
    expected, answered = reference.run(images), answering.run(images)
    differing = int((expected.argmax(axis=1) != answered.argmax(axis=1)).sum())
    largest = float(np.abs(expected - answered).max())
    return Agreement(reference.facts.target, len(images), differing, largest, float(np.abs(expected).max()))

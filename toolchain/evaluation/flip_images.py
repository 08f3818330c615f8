"""Flipped: the pictures of the characters whose answer changed, kept with the evidence for people to look at."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np

from calibration.dataset import SIDE, Dataset, Images
from toolchain.core.errors import EvidenceError
from toolchain.core.json_codec import AsText
from toolchain.evaluation.paired_answers import Answers, Pairs


def _base64(images: Images) -> str:
    return base64.b64encode(np.ascontiguousarray(images).tobytes()).decode()


def _pixels(text: str) -> Images:
    return np.frombuffer(base64.b64decode(text, validate=True), np.uint8).reshape(-1, SIDE, SIDE)


@dataclass(frozen=True, eq=False)
class Flipped:
    """Some of the flipped images: indices int64 [F] into the pairs, lost ones first, and uint8 images [F, 28, 28]."""

    indices: Answers = field(repr=False)
    images: Annotated[Images, AsText(_pixels, _base64)] = field(repr=False)

    def __post_init__(self) -> None:
        """Reject pictures that are not as many as their indices."""
        if len(self.indices) != len(self.images):
            raise EvidenceError("the pictures are not one for each index; gather the evidence again")


def flipped(pairs: Pairs, dataset: Dataset, *, most: int = 60) -> Flipped:
    """Return at most `most` flipped images of `dataset`, the lost ones first, then other flips, then gained ones."""
    changed = np.flatnonzero(pairs.flipped)
    rank = np.where(pairs.lost[changed], 0, np.where(pairs.gained[changed], 2, 1))
    indices = changed[np.argsort(rank, kind="stable")][:most]
    return Flipped(indices, dataset.images[indices])

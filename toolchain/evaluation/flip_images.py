"""Flipped: the pictures of the characters whose answer changed, kept with the evidence for people to look at."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.dataset import SIDE, Dataset, Images
from toolchain.core.errors import EvidenceError
from toolchain.evaluation.paired_answers import Pairs
from toolchain.evaluation.strict_json import integers, told


@dataclass(frozen=True, eq=False)
class Flipped:
    """Some of the flipped images: indices int64 [F] into the pairs, lost ones first, and uint8 images [F, 28, 28]."""

    indices: NDArray[np.int64] = field(repr=False)
    images: Images = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types, the images in base64; `from_dict` is the inverse."""
        pixels = base64.b64encode(np.ascontiguousarray(self.images).tobytes()).decode()
        return {"indices": self.indices.tolist(), "images": pixels}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Flipped:
        """Rebuild from `to_dict`; raises EvidenceError on anything else."""
        try:
            indices = integers(values["indices"])
            pixels = np.frombuffer(base64.b64decode(values["images"], validate=True), np.uint8)
            return cls(indices, pixels.reshape(len(indices), SIDE, SIDE))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise EvidenceError(f"not stored pictures ({told(error)}); gather the evidence again") from error


def flipped(pairs: Pairs, dataset: Dataset, *, most: int = 60) -> Flipped:
    """Return at most `most` flipped images of `dataset`, the lost ones first, then other flips, then gained ones."""
    changed = np.flatnonzero(pairs.flipped)
    rank = np.where(pairs.lost[changed], 0, np.where(pairs.gained[changed], 2, 1))
    indices = changed[np.argsort(rank, kind="stable")][:most]
    return Flipped(indices, dataset.images[indices])

"""CalibrationSet: the images that static quantization takes its ranges from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.dataset import Dataset, Images
from calibration.errors import EmptyData


@dataclass(frozen=True)
class CalibrationSet:
    """Images for calibration, never from a test split.

    images: uint8 [N, 28, 28]. indices: int64 [N], where they stand in `origin`. sha256: digest of the images.
    """

    images: Images
    indices: NDArray[np.int64]
    seed: int
    origin: str
    sha256: str

    def facts(self) -> dict[str, Any]:
        """Return what an artifact's sidecar records."""
        return {"origin": self.origin, "images": len(self.images), "seed": self.seed, "sha256": self.sha256}


def image_hashes(images: Images) -> NDArray[np.bytes_]:
    """Return the 16-byte BLAKE2b digest of each image [N], for finding the same image twice."""
    return np.array([hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest() for image in images], dtype="S32")

"""Dataset: labelled glyphs, whatever they were read from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "test"]
Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Dataset:
    """Labelled glyphs as a person reads them.

    images: uint8 [N, 28, 28], upright, bright ink on black, 0 to 255.
    labels: int64 [N], an index into `classes` (EMNIST's own numbering is gone).
    classes: the character each index stands for.
    origin: the words that name it, such as `emnist:balanced/test`.
    sha256: digest of images and labels in order.
    """

    images: Images
    labels: Labels
    classes: tuple[str, ...]
    origin: str
    split: Split
    sha256: str

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

"""The reader `npz`: data files that `numpy.savez(path, images=..., labels=..., classes=...)` wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from glyphpress.plugins import CorruptData, Stored


def read_npz(path: Path) -> Stored:
    """Read uint8 images [N, H, W] and whole numbers as labels [N]; `classes`, their names, may be missing.

    How the images stand and which side is ink is found by glyphpress, as for every data file. Raises CorruptData.
    """
    try:
        # Without pickles, since a data file is a stranger's file.
        with np.load(path, allow_pickle=False) as arrays:
            images, labels = arrays["images"], arrays["labels"]
            classes = tuple(map(str, arrays["classes"])) if "classes" in arrays else ()
    except Exception as error:
        raise CorruptData(f"{path}: no images and labels of numpy.savez ({error}); save them again") from error
    if images.dtype != np.uint8 or labels.dtype.kind not in "iu":
        raise CorruptData(f"{path}: images are {images.dtype} and labels {labels.dtype}; save uint8 and whole numbers")
    return Stored(images, labels.astype(np.int64), lambda index: f"image {index:,}", classes)

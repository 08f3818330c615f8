"""The embedded default data set: scikit-learn's 1,797 handwritten digits, brought to EMNIST's style."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from calibration.dataset import Dataset, Images, Labels, Split
from calibration.errors import DataNotFound
from calibration.holdout import held_out

DIGITS = "builtin:digits"
_TEST_SHARE = 1 / 3
"""600 test images can decide a margin of a few points; fewer could not."""


@cache
def all_digits() -> tuple[Images, Labels]:
    """Return all 1,797 images, uint8 [N, 28, 28], and their labels.

    They are the test part of the UCI set "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998),
    8x8 pixels of 17 grays, as scikit-learn carries them. Raises DataNotFound when scikit-learn lacks the file.
    """
    from calibration.glyph import glyph

    table = np.loadtxt(_digits_file(), delimiter=",", dtype=np.uint8)
    scans = (table[:, :64].reshape(-1, 8, 8).astype(np.uint16) * 255 // 16).astype(np.uint8)
    return np.stack([glyph(scan) for scan in scans]), table[:, 64].astype(np.int64)


@cache
def digits(split: Split = "test") -> Dataset:
    """Return about 1,200 training or 600 test digits, always the same ones.

    The source does not say who wrote which digit, so a writer may stand on both sides.
    """
    images, labels = all_digits()
    classes = tuple("0123456789")
    test = held_out(images, labels, classes, _TEST_SHARE)
    keep = test if split == "test" else ~test
    return Dataset.of(images[keep], labels[keep], classes, f"{DIGITS}/{split}", split)


def _digits_file() -> Path:
    # sklearn.datasets.load_digits reads this very file, but importing it costs more than a second.
    found = find_spec("sklearn")
    folders = list(found.submodule_search_locations or ()) if found else []
    for folder in folders:
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            return path
    raise DataNotFound(
        "scikit-learn's digits are not installed; `pip install --force-reinstall scikit-learn` adds them"
    )

"""The data sets that are always there: scikit-learn's handwritten digits, as glyphs and as its tutorials have them."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.dataset import SIDE, Dataset, Images, Labels, Split
from calibration.errors import DataNotFound
from calibration.sample import held_out

DIGITS = "builtin:digits"
SCANS = "builtin:digits8x8"
SCAN_SIDE = 8
"""Pixels of a side of scikit-learn's digits, whose values are 0 to 16."""
SCAN_LEVELS = 16
_ENLARGED = 3
"""Side of the square of equal pixels that stands for one of a scan, with a margin of 2 around all of them."""
_MARGIN = (SIDE - _ENLARGED * SCAN_SIDE) // 2
_TEST_SHARE = 1 / 3
"""600 test images can decide a margin of a few points; fewer cannot."""


@cache
def all_digits() -> tuple[Images, Labels]:
    """Return all 1,797 images, uint8 [N, 28, 28], and their labels.

    They are the test part of the UCI set "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998),
    8x8 pixels of 17 grays, as scikit-learn carries them. Raises DataNotFound when scikit-learn lacks the file.
    """
    from calibration.glyph import glyph

    levels, labels = _digits_table()
    grays = (levels.astype(np.uint16) * 255 // SCAN_LEVELS).astype(np.uint8)
    return np.stack([glyph(scan) for scan in grays]), labels


def _digits_table() -> tuple[Images, Labels]:
    """Return all scans, uint8 [N, 8, 8] from 0 to 16, and their labels, in scikit-learn's order."""
    table = np.loadtxt(_digits_file(), delimiter=",", dtype=np.uint8)
    return table[:, :64].reshape(-1, SCAN_SIDE, SCAN_SIDE), table[:, 64].astype(np.int64)


@cache
def digits(split: Split = "test") -> Dataset:
    """Return about 1,200 training or 600 test digits, always the same ones.

    The source does not say who wrote a digit, so one writer's digits may be in both splits.
    """
    images, labels = all_digits()
    classes = tuple("0123456789")
    test = held_out(images, labels, classes, _TEST_SHARE)
    keep = test if split == "test" else ~test
    return Dataset.of(images[keep], labels[keep], classes, f"{DIGITS}/{split}", split)


@cache
def scans(split: Split = "test") -> Dataset:
    """Return scikit-learn's 8x8 digits as its tutorials split them: the first 898 to train, the other 899 to test.

    Each pixel is a square of 3x3 equal ones, scaled from 0..16 to 0..255, within a margin of 2 black pixels, so that
    the mean of each square is the tutorials' value again (`round(mean * 16 / 255)`).
    """
    levels, labels = _digits_table()
    images = _enlarged(levels)
    half = len(labels) // 2
    part = slice(half, None) if split == "test" else slice(half)
    return Dataset.of(images[part], labels[part], tuple("0123456789"), f"{SCANS}/{split}", split)


def are_scans(images: Images) -> bool:
    """Return whether images, uint8 [N, 28, 28], are 8x8 values from 0 to 16 that were enlarged as those of `scans`."""
    squares = images[:, _MARGIN:-_MARGIN:_ENLARGED, _MARGIN:-_MARGIN:_ENLARGED]
    return np.array_equal(_enlarged(np.round(squares * (SCAN_LEVELS / 255))), images)


def _enlarged(levels: NDArray[Any]) -> Images:
    grays = np.round(levels * (255 / SCAN_LEVELS)).astype(np.uint8)
    margins = [(0, 0), (_MARGIN, _MARGIN), (_MARGIN, _MARGIN)]
    return np.pad(grays.repeat(_ENLARGED, 1).repeat(_ENLARGED, 2), margins)


BUILT_IN = {DIGITS: digits, SCANS: scans}
"""Spec of each data set that is always there -> what returns a split of it."""


def _digits_file() -> Path:
    # sklearn.datasets.load_digits reads this file, but importing it takes more than a second.
    package = find_spec("sklearn")
    folders = list(package.submodule_search_locations or ()) if package else []
    for folder in folders:
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            return path
    raise DataNotFound(
        "scikit-learn's digits are not installed; `pip install --force-reinstall scikit-learn` installs them"
    )

"""The six splits of EMNIST, as NIST publishes them (Cohen et al. 2017, arXiv:1702.05373, and the data set's page).

All files store images transposed: pixel (row, column) of the glyph is at (column, row).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from string import ascii_lowercase, ascii_uppercase, digits

from calibration.errors import UnknownData

# Lower-case letters that are classes of their own in the merged splits, since their capitals look different.
_LOWER_CLASSES = "abdefghnqrt"


@dataclass(frozen=True)
class EmnistSplit:
    """One split: the meaning of its labels, and NIST's numbers of images.

    classes: the character of each class; where the mapping merges both cases, the capital, which is its first code.
    label_offset: the label stored for class 0 (1 for letters, else 0).
    train, test: official numbers of images. balanced: whether all classes officially have equally many images.
    """

    name: str
    classes: tuple[str, ...]
    train: int
    test: int
    label_offset: int = 0
    balanced: bool = False

    def official_count(self, split: str) -> int:
        """Return the official number of images of `train` or `test`."""
        return self.train if split == "train" else self.test


SPLITS = {
    split.name: split
    for split in (
        EmnistSplit("byclass", tuple(digits + ascii_uppercase + ascii_lowercase), 697_932, 116_323),
        EmnistSplit("bymerge", tuple(digits + ascii_uppercase + _LOWER_CLASSES), 697_932, 116_323),
        EmnistSplit("balanced", tuple(digits + ascii_uppercase + _LOWER_CLASSES), 112_800, 18_800, balanced=True),
        EmnistSplit("letters", tuple(ascii_uppercase), 124_800, 20_800, label_offset=1, balanced=True),
        EmnistSplit("digits", tuple(digits), 240_000, 40_000, balanced=True),
        EmnistSplit("mnist", tuple(digits), 60_000, 10_000),
    )
}


def emnist_split(name: str) -> EmnistSplit:
    """Return the split called `name`; raises UnknownData with the nearest names."""
    if name not in SPLITS:
        near = difflib.get_close_matches(name.lower(), SPLITS, n=3)
        advice = f"did you mean {', '.join(near)}?" if near else "`glyphpress data list` shows them"
        raise UnknownData(f"EMNIST has no split '{name}'; {advice}")
    return SPLITS[name]

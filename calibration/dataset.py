"""Dataset: labelled glyphs, whatever they were read from, and the words that name one."""

from __future__ import annotations

import difflib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from calibration.errors import CorruptData, DataNotFound, EmptyData, UnknownData
from calibration.splits import SPLITS, emnist_split

Split = Literal["train", "test"]
Images = NDArray[np.uint8]
Labels = NDArray[np.int64]

SIDE = 28
DIGITS = "builtin:digits"
_FORMS = f"{DIGITS}, emnist:SPLIT, DIR:SPLIT, or a folder of pictures with a subfolder a class"


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

    @classmethod
    def of(cls, images: Images, labels: Labels, classes: tuple[str, ...], origin: str, split: Split) -> Dataset:
        """Check and digest images and labels; raises EmptyData, CorruptData."""
        if images.dtype != np.uint8 or images.shape[1:] != (SIDE, SIDE) or labels.shape != images.shape[:1]:
            raise CorruptData(
                f"{origin}: expected uint8 images [N, 28, 28] and N labels, got {images.dtype} "
                f"{list(images.shape)} and {list(labels.shape)}; convert them first"
            )
        if not len(images):
            raise EmptyData(f"{origin} holds no images; give one that does")
        if labels.min() < 0 or labels.max() >= len(classes):
            raise CorruptData(
                f"{origin}: labels run to {labels.max()} but there are {len(classes)} classes; check them"
            )
        if labels.min() == labels.max():
            raise EmptyData(f"{origin} holds a single class, '{classes[labels[0]]}'; two or more are needed")
        images, labels = np.ascontiguousarray(images), np.ascontiguousarray(labels, np.int64)
        digest = hashlib.sha256(images.reshape(-1).data)
        digest.update(labels.astype("<i8").data)
        return cls(images, labels, classes, origin, split, digest.hexdigest())

    def take(self, indices: NDArray[np.int64], name: str) -> Dataset:
        """Return the images at `indices`, in that order; `name` is added to the origin in brackets."""
        return Dataset.of(
            self.images[indices], self.labels[indices], self.classes, f"{self.origin} [{name}]", self.split
        )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)


def load(spec: str, split: Split = "test", data_root: Path | None = None) -> Dataset:
    """Read what the words after `--data` name.

    spec: `builtin:digits`; `emnist:SPLIT`, looked up under `data_root`, $GLYPHPRESS_DATA, then the user cache;
    `DIR:SPLIT`, the same official files in or one level below DIR; or `DIR`, a folder of pictures.
    Raises UnknownData, DataNotFound, CorruptData, EmptyData.
    """
    from calibration import builtin, emnist, pictures

    if spec == DIGITS:
        return builtin.digits(split)
    place, colon, name = spec.rpartition(":")
    if Path(spec).is_dir():
        return pictures.load_folder(Path(spec), split)
    if not colon:
        raise _not_known(spec)
    if place == "builtin":
        raise UnknownData(f"nothing built in is called '{name}'; did you mean {DIGITS}?")
    if place == "emnist":
        return emnist.load_split(emnist_split(name), split, emnist.roots(data_root), spec)
    if not Path(place).is_dir():
        raise DataNotFound(f"no folder {place}; --data takes {_FORMS}")
    return emnist.load_split(emnist_split(name), split, [Path(place)], f"emnist:{name}")


def _not_known(spec: str) -> UnknownData | DataNotFound:
    if Path(spec).exists():
        return DataNotFound(f"{spec} is a file, not a folder; --data takes {_FORMS}")
    known = {DIGITS: DIGITS, "digits": DIGITS, "builtin": DIGITS, "emnist": "emnist:balanced"}
    known |= {name: f"emnist:{name}" for name in SPLITS} | {f"emnist{name}": f"emnist:{name}" for name in SPLITS}
    near = [known[word] for word in difflib.get_close_matches(spec.lower(), known, n=3)]
    if near and "/" not in spec:
        return UnknownData(
            f"no folder and no data set is called '{spec}'; did you mean {', '.join(dict.fromkeys(near))}?"
        )
    return DataNotFound(f"no folder {spec}; --data takes {_FORMS}")

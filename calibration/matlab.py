"""The MATLAB form of EMNIST, as NIST publishes it (`emnist-SPLIT.mat`): one structure `dataset` with both splits.

`dataset.train` and `dataset.test` hold `images` uint8 [N, 784], in MATLAB's order of columns first, and `labels`;
`dataset.mapping` holds a label and its character codes in each row.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from calibration.dataset import SIDE, Split
from calibration.errors import CorruptData, EmptyData
from calibration.stored import Stored

_SAVE_AGAIN = "save it with `save -v7`, as NIST's own files are"


def read_matlab(path: Path, split: Split) -> Stored:
    """Read one split; raises CorruptData for another structure, EmptyData for a split without images."""
    dataset = _dataset(path)
    part = _field(path, dataset, split)
    images, labels = _field(path, part, "images", split), _field(path, part, "labels", split)
    if images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != SIDE**2:
        raise CorruptData(
            f"{path}: expected dataset.{split}.images as uint8 [N, {SIDE**2}], found {images.dtype} "
            f"{list(images.shape)}; {_SAVE_AGAIN}"
        )
    if labels.size != len(images) or labels.dtype.kind not in "iuf" or (labels != np.floor(labels)).any():
        raise CorruptData(
            f"{path}: expected {len(images):,} whole numbers in dataset.{split}.labels, found {labels.dtype} "
            f"{list(labels.shape)}; {_SAVE_AGAIN}"
        )
    if not len(images):
        raise EmptyData(f"{path} holds no {split} images; give one that does")
    rows = np.ascontiguousarray(images).reshape(-1, SIDE, SIDE)
    return Stored(rows, labels.reshape(-1).astype(np.int64), lambda index: f"row {index + 1:,} of dataset.{split}")


def _dataset(path: Path) -> Any:
    """Return the structure `dataset`."""
    from scipy import io

    try:
        found = io.loadmat(path, variable_names=["dataset"])
    except NotImplementedError as error:
        raise CorruptData(f"{path} is of MATLAB 7.3, which is HDF5; {_SAVE_AGAIN}") from error
    # scipy's readers raise these, and more, for truncated, hostile and malformed files.
    except Exception as error:
        raise CorruptData(f"{path} is a damaged MATLAB file ({error}); fetch or copy it again") from error
    if "dataset" not in found:
        names = ", ".join(name for name, *_ in io.whosmat(path)) or "nothing"
        raise CorruptData(f"{path}: expected a variable called dataset, found {names}; is it EMNIST's?")
    return found["dataset"]


def _field(path: Path, structure: Any, name: str, within: str = "") -> Any:
    """Return a field of a structure, which scipy reads as an array [1, 1] of records."""
    fields = getattr(structure.dtype, "names", None) or ()
    if name not in fields or structure.size != 1:
        here = ".".join(filter(None, ("dataset", within)))
        raise CorruptData(f"{path}: {here} has no field {name}, only {', '.join(fields) or 'values'}; is it EMNIST's?")
    return structure.reshape(-1)[0][name]

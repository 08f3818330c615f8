from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import io

from calibration.errors import CorruptData, EmptyData
from calibration.matlab import read_matlab

IMAGES, LABELS = np.zeros((4, 784), np.uint8), np.arange(4.0)[:, None]


@pytest.mark.parametrize(
    ("variables", "error", "said"),
    [
        ({"other": 1}, CorruptData, "expected a variable called dataset, found other; is it EMNIST's?"),
        ({"dataset": 1}, CorruptData, "dataset has no field test, only values"),
        ({"dataset": {"train": {"images": IMAGES}}}, CorruptData, "dataset has no field test, only train"),
        ({"dataset": {"test": {"images": IMAGES}}}, CorruptData, "dataset.test has no field labels, only images"),
        ({"dataset": {"test": {"images": IMAGES[:, :9], "labels": LABELS}}}, CorruptData, r"found uint8 \[4, 9\]"),
        ({"dataset": {"test": {"images": IMAGES / 2, "labels": LABELS}}}, CorruptData, r"found float64 \[4, 784\]"),
        ({"dataset": {"test": {"images": IMAGES, "labels": LABELS[:3]}}}, CorruptData, "expected 4 whole numbers"),
        ({"dataset": {"test": {"images": IMAGES, "labels": LABELS / 2}}}, CorruptData, "expected 4 whole numbers"),
        ({"dataset": {"test": {"images": IMAGES[:0], "labels": LABELS[:0]}}}, EmptyData, "holds no test images"),
    ],
)
def test_other_structures_are_refused(
    variables: dict[str, Any], error: type[Exception], said: str, tmp_path: Path
) -> None:
    io.savemat(tmp_path / "x.mat", variables)
    with pytest.raises(error, match=said):
        read_matlab(tmp_path / "x.mat", "test")


def test_the_newer_format_is_named(tmp_path: Path) -> None:
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM" + b"\x89HDF\r\n\x1a\n"
    (tmp_path / "x.mat").write_bytes(header.ljust(600, b"\0"))
    with pytest.raises(CorruptData, match=r"is of MATLAB 7.3, which is HDF5; save it with `save -v7`"):
        read_matlab(tmp_path / "x.mat", "test")

"""Memory that `evaluate` takes for each image of a large data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.fixtures.memory_growth import grown
from tests.fixtures.official_files import write_split
from tests.fixtures.small_readers import linear_reader

FEW, MANY = 20_000, 220_000
BYTES_EACH = 300
"""Logits of ten classes, hash and label take some 90; the image's own 784 are not kept."""


@pytest.mark.slow
def test_row55_evaluate_keeps_no_images(tmp_path: Path) -> None:
    linear_reader(tmp_path / "reader.onnx")
    for count in (FEW, MANY):
        images = np.random.default_rng(0).integers(0, 255, (count, 28, 28), np.uint8)
        write_split(tmp_path / str(count), "digits", "test", images, np.arange(count) % 10, suffix="")
    few, many = grown(tmp_path, [["evaluate", "reader.onnx", "--data", f"{count}:digits"] for count in (FEW, MANY)])
    assert (many - few) / (MANY - FEW) < BYTES_EACH

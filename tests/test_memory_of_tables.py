"""Memory that a table of pixels takes while it is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibration.dataset import SIDE
from tests.fixtures.data_files import table
from tests.fixtures.memory_growth import grown
from tests.fixtures.official_files import strokes
from tests.fixtures.small_readers import linear_reader

FEW, MANY = 16_000, 64_000
BYTES_EACH = 1.3 * SIDE**2
"""An image as it is kept, a byte for each pixel, and its label, hash and logits; as text it has some 1,900 bytes."""


@pytest.mark.slow
def test_a_table_is_never_held_as_text_or_twice(tmp_path: Path) -> None:
    linear_reader(tmp_path / "reader.onnx")
    rows = table(strokes(1_000), np.arange(1_000) % 10)
    for count in (FEW, MANY):
        (tmp_path / f"{count}_test.csv").write_bytes(rows * (count // 1_000))
    few, many = (
        grown(tmp_path, [["evaluate", "reader.onnx", "--data", f"{count}_test.csv:digits,upright"]])[0]
        for count in (FEW, MANY)
    )
    assert (many - few) / (MANY - FEW) < BYTES_EACH

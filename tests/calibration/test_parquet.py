from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow.parquet import write_table

from calibration.errors import CorruptData, EmptyData, ReaderMissing
from calibration.parquet import read_parquet
from tests.fixtures.data_files import png
from tests.fixtures.official_files import strokes

PICTURE = png(strokes(1)[0])


@pytest.mark.parametrize(
    ("columns", "error", "said"),
    [
        (
            {"text": ["a"], "label": [1]},
            CorruptData,
            r"has no column of pictures \(bytes\), only text \(string\), label",
        ),
        ({"image": [PICTURE], "digit": [1]}, CorruptData, "has no column of whole numbers called label, only image"),
        ({"image": [PICTURE], "label": ["A"]}, CorruptData, r"label \(string\); rename or number the classes so"),
        ({"image": [b"not a picture"], "label": [1]}, CorruptData, "row 1 is not a readable picture"),
        ({"image": [PICTURE, None], "label": [1, 2]}, CorruptData, "row 2: expected a picture, found none"),
        ({"image": [{"bytes": None, "path": "1.png"}, {"bytes": PICTURE}], "label": [1, 2]}, CorruptData, "row 1: exp"),
        ({"image": [PICTURE, PICTURE], "label": [1, None]}, CorruptData, "row 2: expected a label, found none"),
        ({"image": [b"%PDF-1.4"], "label": [1]}, CorruptData, "row 1: it is a PDF"),
        ({"image": pyarrow.array([], "binary"), "label": pyarrow.array([], "int64")}, EmptyData, "holds no images"),
    ],
)
def test_other_columns_are_refused(columns: dict[str, Any], error: type[Exception], said: str, tmp_path: Path) -> None:
    write_table(pyarrow.table(columns), tmp_path / "x.parquet")
    with pytest.raises(error, match=said):
        read_parquet([tmp_path / "x.parquet"])


def test_a_file_that_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    write_table(pyarrow.table({"image": [PICTURE] * 50, "label": list(range(50))}), path)
    whole = path.read_bytes()
    assert read_parquet([path]).images.shape == (50, 28, 28)
    path.write_bytes(whole[: len(whole) // 2] + bytes(200) + whole[len(whole) // 2 + 200 :])
    with pytest.raises(CorruptData):
        read_parquet([path])
    path.write_bytes(whole[:-20])
    with pytest.raises(CorruptData, match="is a damaged parquet file"):
        read_parquet([path])


def test_pictures_of_other_sizes_become_glyphs(tmp_path: Path) -> None:
    page = np.full((60, 40), 255, np.uint8)
    page[10:50, 15:20] = 0
    write_table(pyarrow.table({"image": [png(page)], "labels": [7]}), tmp_path / "x.parquet")
    stored = read_parquet([tmp_path / "x.parquet"])
    assert stored.images[0, 14, 12:16].max() > 200
    assert stored.images[0, 0].max() == 0
    assert (stored.labels.tolist(), stored.place(0)) == ([7], "row 1 of x.parquet")


def test_without_pyarrow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calibration.parquet.find_spec", lambda _name: None)
    with pytest.raises(ReaderMissing, match=r"pip install 'glyphpress\[parquet\]'"):
        read_parquet([Path("x.parquet")])

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from calibration import pixel_table
from calibration.errors import CorruptData, EmptyData
from calibration.pixel_table import read_pixel_table
from tests.fixtures.data_files import table

IMAGES = np.arange(27, dtype=np.uint8).reshape(3, 3, 3) * 9
LABELS = np.array([7, 0, 12])


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "header", ["", "label,a,b,c,d,e,f,g,h,i\n", "0,1,2,3,4,5,6,7,8,9\n", "3,0.1,1,1,1,1,1,1,1,1\n"]
)
@pytest.mark.parametrize("last", ["", "\n", "\n\n"])
def test_every_way_to_write_it(end: str, header: str, last: str, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    text = table(IMAGES, LABELS, header=header).decode().rstrip("\n") + last
    path.write_bytes(text.replace("\n", end).encode())
    stored = read_pixel_table(path)
    assert np.array_equal(stored.images, IMAGES)
    assert np.array_equal(stored.labels, LABELS)
    assert stored.place(0) == ("line 2" if header else "line 1")


def test_blocks_meet_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 3, 3), dtype=np.uint8)
    path = tmp_path / "x.csv"
    path.write_bytes(b"\xef\xbb\xbf" + table(images, np.arange(50)))
    for size in (60, 97, 1000):
        monkeypatch.setattr(pixel_table, "_BLOCK", size)
        stored = read_pixel_table(path)
        assert np.array_equal(stored.images, images)
        assert np.array_equal(stored.labels, np.arange(50))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1,2,3,4,5,6,7,8,9", "line 3: expected 10 columns, found 9"),
        ("1,2,3,4,5,6,7,8,9,10,11", "line 3: expected 10 columns, found 11"),
        ("1,2,3,4,five,6,7,8,9,10", "line 3, column 5: expected a whole number from 0 to 255, found 'five'"),
        ("1,2,3,4,-5,6,7,8,9,10", "line 3, column 5: expected a whole number from 0 to 255, found '-5'"),
        ("1,2,3,4,,6,7,8,9,10", "line 3, column 5: expected a whole number from 0 to 255, found ''"),
        ("1,2,3,4,5,6,7,8,9,256", "line 3, column 10: expected pixels from 0 to 255, found 256"),
        ("1,2,3,4,5,6,7,8,9,1000", "line 3, column 10: expected a whole number from 0 to 255, found '1000'"),
        ("1;2;3;4;5;6;7;8;9;10", "line 3: expected 10 columns, found 1"),
    ],
)
def test_a_wrong_line_is_named(line: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"label,a,b,c,d,e,f,g,h,i\n" + table(IMAGES[:1], LABELS[:1]) + line.encode() + b"\n")
    with pytest.raises(CorruptData, match=said) as caught:
        read_pixel_table(path)
    assert str(path) in str(caught.value)


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    for content, error in (
        (b"\n\n", EmptyData),
        (b"label,a,b,c,d\n", EmptyData),
        (b"\0" * 5000, CorruptData),
        (gzip.compress(table(IMAGES, LABELS))[:-9], CorruptData),
        (gzip.compress(b"0,0,0,0,0\n" * 20_000_000, 9), CorruptData),
    ):
        path.write_bytes(content)
        with pytest.raises(error):
            read_pixel_table(path)

from __future__ import annotations

import gzip
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from calibration.errors import CorruptData, DataNotFound
from calibration.idx import open_idx
from tests.fixtures.official_files import write_idx

ITEMS = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
HEADER = 16


def read_idx(path: Path) -> np.ndarray:
    with open_idx(path) as reader:
        return reader.read_all()


@given(arrays(np.uint8, array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=6)), st.sampled_from([".gz", ""]))
def test_what_is_written_is_read_back(items: np.ndarray, suffix: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"items-idx{suffix}"
        write_idx(path, items)
        back = read_idx(path)
    assert back.dtype == np.uint8
    assert np.array_equal(back, items)


def test_content_decides_and_not_the_name(tmp_path: Path) -> None:
    """Browsers unpack a .gz and keep its name."""
    write_idx(tmp_path / "plain", ITEMS)
    (tmp_path / "plain").rename(tmp_path / "named.gz")
    assert np.array_equal(read_idx(tmp_path / "named.gz"), ITEMS)


def content() -> bytes:
    return bytes((0, 0, 8, 3)) + np.array(ITEMS.shape, ">u4").tobytes() + ITEMS.tobytes()


CORRUPT = {
    "empty": (b"", "expected an IDX header of 4 bytes at byte 0, found the end"),
    "other magic": (b"\x89PNG" + content()[4:], "expected the IDX magic 00 00 08 NN .* at byte 0, found 89 50 4e 47"),
    "signed integers": (b"\0\0\x0c\x03" + content()[4:], "at byte 0, found 00 00 0c 03"),
    "header cut": (content()[:10], "expected 3 axis lengths of 12 bytes at byte 10, found the end after 6"),
    "items cut": (content()[:-7], "expected 7 more of 60 bytes at byte 69, found the end"),
    "bytes too many": (content() + b"x", "expected the end after 3 items at byte 76, found more bytes"),
    "gzip cut": (gzip.compress(content())[:-9], "expected a whole gzip stream at unpacked byte"),
    "gzip and rubbish": (gzip.compress(content()) + b"rubbish", "expected a whole gzip stream at unpacked byte 76"),
    "gzip checksum": (gzip.compress(content())[:-8] + b"\0" * 8, "a whole gzip stream at unpacked byte 76.*CRC"),
    "axes beyond memory": (b"\0\0\x08\x03" + b"\xff" * 12, "expected a shape that can come from 16 bytes at byte 4"),
}


@pytest.mark.parametrize("case", CORRUPT)
def test_corrupt_file_is_named_with_offset_and_expectation(case: str, tmp_path: Path) -> None:
    stored, message = CORRUPT[case]
    path = tmp_path / "emnist-digits-test-images-idx3-ubyte"
    path.write_bytes(stored)
    with pytest.raises(CorruptData, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.integers(0, len(content()) - 1))
def test_no_cut_is_ever_taken_for_the_whole(length: int) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "cut"
        path.write_bytes(content()[:length])
        with pytest.raises(CorruptData):
            read_idx(path)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match="no file"):
        read_idx(tmp_path / "nothing")

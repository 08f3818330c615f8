"""Tables of pixels as text, as Kaggle has EMNIST and MNIST: a row for each image, its label first, then its pixels.

Values are whole numbers from 0 to 255, separated by commas; a first line with names is passed over. The file may be
gzipped. It is read in blocks, so that besides the images themselves (a byte for each pixel) only a block is in memory.
"""

from __future__ import annotations

import gzip
import io
import math
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from calibration.dataset import SIDE
from calibration.errors import CorruptData, EmptyData
from calibration.idx import unpacks_to_too_much
from calibration.listener import listener
from calibration.stored import Stored

_BLOCK = 8 << 20
_LONGEST_LINE = 1 << 20
_GZIP = b"\x1f\x8b"
_FRACTION = re.compile(rb"[01]?\.\d{1,20}(e-?\d{1,3})?")
_COMMA, _NEWLINE, _ZERO = b",\n0"


def read_pixel_table(path: Path) -> Stored:
    """Read a table of pixels; raises EmptyData, and CorruptData with the line."""
    reader = _Reader(path)
    images, labels = reader.read()
    first = 1 + reader.has_header
    return Stored(images, labels, lambda index: f"line {index + first:,}")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Yield the text of a file, unpacked where it is gzipped, and the file itself, whose position shows progress."""
    with path.open("rb") as raw:
        try:
            if raw.peek(2)[:2] == _GZIP:
                with gzip.GzipFile(fileobj=raw) as unpacked:
                    yield cast(BinaryIO, unpacked), raw
            else:
                yield raw, raw
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise CorruptData(
                f"{path}: expected a whole gzip stream ({error}); fetch or copy the file again"
            ) from error


class _Reader:
    def __init__(self, path: Path) -> None:
        """Find the number of columns, and whether the first line has names."""
        self.path = path
        with _opened(path) as (text, _):
            line = text.readline(_LONGEST_LINE).removeprefix("\ufeff".encode())
            second = text.readline(_LONGEST_LINE)
        if not line.strip():
            raise EmptyData(f"{path} is empty; copy it again")
        columns = line.count(b",") + 1
        self.side = math.isqrt(max(columns - 1, 1))
        if self.side < 2 or columns != 1 + self.side**2:
            raise CorruptData(
                f"{path}, line 1: expected a label and the pixels of a square, such as {1 + SIDE**2} columns, found "
                f"{columns:,}; keep these columns alone, separated by commas"
            )
        self.columns = columns
        self.has_header = bool(line.strip(b"0123456789,\r\n")) or self._counts_up(line)
        if self.has_header and not second.strip():
            raise EmptyData(f"{path} holds no images below its first line; give one that does")

    def _counts_up(self, line: bytes) -> bool:
        """Return whether the line numbers its columns, as pandas does for a table without names."""
        return line.strip().split(b",") == [b"%d" % number for number in range(self.columns)]

    def read(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        most = self._most_rows()
        pixels = self.side**2
        if unpacks_to_too_much(most * pixels, packed := self.path.stat().st_size):
            raise CorruptData(
                f"{self.path}: its {packed:,} bytes unpack to {most:,} images at most; unpack it yourself"
            )
        # Pages of it that no image fills are never taken from the system.
        table = np.empty((most, pixels), np.uint8)
        labels = np.empty(most, np.int64)
        done = 0
        for rows in self._blocks():
            table[done : done + len(rows)] = rows[:, 1:]
            labels[done : done + len(rows)] = rows[:, 0]
            done += len(rows)
        if not done:
            raise EmptyData(f"{self.path} holds no images; give one that does")
        return table[:done].reshape(done, self.side, self.side), labels[:done]

    def _most_rows(self) -> int:
        """Return how many rows there can be: as many as have a digit and a separator for each column."""
        with _opened(self.path) as (text, raw):
            if text is raw:
                size = self.path.stat().st_size + 1
            else:
                size = 1 + sum(len(block) for block in iter(lambda: text.read(_BLOCK), b""))
        return size // (2 * self.columns)

    def _blocks(self) -> Iterator[NDArray[np.int64]]:
        """Yield the numbers of whole lines, [rows, columns]."""
        rest, line, total = b"", 1, self.path.stat().st_size
        with _opened(self.path) as (text, raw):
            if self.has_header:
                text.readline(_LONGEST_LINE)
                line = 2
            else:
                rest = text.read(3).removeprefix("\ufeff".encode())
            while block := text.read(_BLOCK):
                listener().progress(f"reading {self.path.name}, MB", raw.tell() >> 20, total >> 20)
                lines, newline, rest = (rest + block).rpartition(b"\n")
                if newline:
                    yield self._numbers(lines + newline, line)
                    line += lines.count(b"\n") + 1
                elif len(rest) > _BLOCK:
                    raise self._corrupt(line, f"{self.columns:,} columns", "a line without end")
            if rest.strip():
                yield self._numbers(rest + b"\n", line)
            listener().progress(f"reading {self.path.name}, MB", total >> 20, total >> 20)

    def _numbers(self, lines: bytes, first: int) -> NDArray[np.int64]:
        """Return the numbers of whole lines, [rows, columns]; first: the number of the first line."""
        if b"\r" in lines:
            lines = lines.replace(b"\r\n", b"\n")
        lines = lines.rstrip(b"\n") + b"\n"
        text = np.frombuffer(lines, np.uint8)
        digits = text - _ZERO
        ends = np.flatnonzero(digits > 9)
        lengths = np.diff(ends, prepend=-1) - 1
        separators = text[ends]
        wrong = (lengths < 1) | (lengths > 3) | ((separators != _COMMA) & (separators != _NEWLINE))
        line_ends = np.flatnonzero(separators == _NEWLINE)
        uneven = np.diff(line_ends, prepend=-1) != self.columns
        if wrong.any() or uneven.any():
            raise self._wrong_line(lines, first)
        numbers = digits[ends - 1].astype(np.int64)
        for place, factor in ((2, 10), (3, 100)):
            longer = np.flatnonzero(lengths >= place)
            numbers[longer] += factor * digits[ends[longer] - place].astype(np.int64)
        rows = numbers.reshape(-1, self.columns)
        if (too_large := rows[:, 1:] > 255).any():
            row, column = np.argwhere(too_large)[0]
            raise self._corrupt(first + int(row), "pixels from 0 to 255", str(rows[row, column + 1]), int(column) + 2)
        return rows

    def _wrong_line(self, lines: bytes, first: int) -> CorruptData:
        """Return the error for the first of these lines that is not a row."""
        for number, line in enumerate(io.BytesIO(lines), first):
            fields = line.rstrip(b"\n").split(b",")
            if fields == [b""]:
                return self._corrupt(number, f"{self.columns:,} columns", "an empty line")
            if len(fields) != self.columns:
                return self._corrupt(number, f"{self.columns:,} columns", f"{len(fields):,}")
            for column, field in enumerate(fields, 1):
                if not field.isdigit() or len(field) > 3:
                    if column > 1 and _FRACTION.fullmatch(field):
                        found = f"{field.decode()}: multiply by 255 and round"
                        return self._corrupt(number, "whole numbers from 0 to 255", found, column)
                    return self._corrupt(number, "a whole number from 0 to 255", repr(field[:20])[1:], column)
        raise AssertionError("one of the lines is wrong")

    def _corrupt(self, line: int, expected: str, found: str, column: int = 0) -> CorruptData:
        where = f"line {line:,}" + (f", column {column:,}" if column else "")
        return CorruptData(f"{self.path}, {where}: expected {expected}, found {found}; fix it, or save the table again")

"""IDX, the format of MNIST and EMNIST: a big-endian header, then unsigned bytes; plain or gzipped.

Header: two zero bytes, the type (8: unsigned byte), the number of axes, then each axis as a 32-bit big-endian integer.
"""

from __future__ import annotations

import gzip
import io
import math
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast
from zipfile import ZipInfo

import numpy as np
from numpy.typing import NDArray

from calibration.errors import CorruptData, DataNotFound

_ALWAYS_ALLOWED = 64 << 20
_LARGEST_RATIO = 50
_CHUNK = 1 << 20


def unpacks_to_too_much(announced: int, packed: int) -> bool:
    """Return whether a file of `packed` bytes claims so many `announced` bytes in memory that it must be hostile.

    Images and weights pack to a half or a tenth; a thousandth means that the file was made to fill the memory.
    """
    return announced > _ALWAYS_ALLOWED and announced > _LARGEST_RATIO * packed


def announced_bytes(parts: Iterable[ZipInfo]) -> int:
    """Return the unpacked size of a zip archive's parts, as its directory claims."""
    return sum(part.file_size for part in parts)


@contextmanager
def open_idx(path: Path) -> Iterator[IdxReader]:
    """Open an IDX file, gzipped or plain whatever its name; raises DataNotFound, CorruptData."""
    try:
        raw = path.open("rb")
    except FileNotFoundError as error:
        raise DataNotFound(f"no file {path}; check the path") from error
    with raw:
        # The magic number decides, not the name: browsers unpack .gz files and keep the name. peek() does not move.
        if raw.peek(2)[:2] == b"\x1f\x8b":
            # GzipFile is a BufferedIOBase, with all of BinaryIO that is used here.
            with gzip.GzipFile(fileobj=raw) as unpacked:
                yield IdxReader(path, cast(BinaryIO, unpacked))
        else:
            yield IdxReader(path, raw)


class IdxReader:
    """A stream of IDX items whose header has been checked.

    shape: the header's axes, items first.
    """

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        """Read the header."""
        self._path, self._stream, self._offset = path, stream, 0
        magic = self._exactly(4, "an IDX header")
        if magic[:3] != bytes((0, 0, 8)) or not magic[3]:
            raise self.corrupt(0, "the IDX magic 00 00 08 NN (unsigned bytes, NN axes)", magic.hex(" "))
        axes = np.frombuffer(self._exactly(4 * magic[3], f"{magic[3]} axis lengths"), ">u4")
        self.shape = tuple(int(length) for length in axes)
        if unpacks_to_too_much(math.prod(self.shape), packed := path.stat().st_size):
            raise self.corrupt(4, f"a shape that can come from {packed:,} bytes", " x ".join(map(str, self.shape)))

    def expect(self, *item: int) -> None:
        """Raise CorruptData unless every item has this shape (`28, 28` for images, nothing for labels)."""
        if self.shape[1:] != item:
            expected = " x ".join(("N", *map(str, item)))
            raise self.corrupt(4, f"a shape of {expected}", " x ".join(map(str, self.shape)))

    def read_into(self, items: NDArray[np.uint8]) -> None:
        """Fill C-contiguous uint8 `items` with the items that follow; raises CorruptData when the file ends early."""
        view = items.reshape(-1).data
        start = self._offset
        while (done := self._offset - start) < len(view):
            count = self._read(view[done : done + _CHUNK])
            if not count:
                total = math.prod(self.shape)
                raise self.corrupt(self._offset, f"{len(view) - done:,} more of {total:,} bytes", "the end of the file")

    def read_all(self) -> NDArray[np.uint8]:
        """Return every item, uint8 of the header's shape; raises CorruptData unless the file ends there."""
        try:
            items = np.empty(self.shape, np.uint8)
        except (MemoryError, ValueError) as error:
            # A flipped bit in the header can ask for more memory than the machine has.
            raise self.corrupt(4, "a shape that fits in memory", " x ".join(map(str, self.shape))) from error
        self.read_into(items)
        self.finish()
        return items

    def finish(self) -> None:
        """Raise CorruptData when bytes follow the last item; for gzip this also checks its checksum."""
        if self._read(memoryview(bytearray(1))):
            raise self.corrupt(self._offset - 1, f"the end after {self.shape[0]:,} items", "more bytes")

    def _exactly(self, size: int, what: str) -> bytes:
        buffer, start = bytearray(size), self._offset
        while (done := self._offset - start) < size:
            if not self._read(memoryview(buffer)[done:]):
                raise self.corrupt(self._offset, f"{what} of {size} bytes", f"the end after {done} of them")
        return bytes(buffer)

    def _read(self, view: memoryview) -> int:
        try:
            # io.BufferedIOBase has readinto, which typing.BinaryIO lacks.
            count = cast(io.BufferedIOBase, self._stream).readinto(view)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise self.corrupt(self._offset, "a whole gzip stream", str(error)) from error
        self._offset += count
        return count

    def corrupt(
        self, offset: int, expected: str, found: str, advice: str = "fetch or copy the file again"
    ) -> CorruptData:
        """Return the error for unexpected content at `offset`."""
        where = "unpacked byte" if isinstance(self._stream, gzip.GzipFile) else "byte"
        return CorruptData(f"{self._path}: expected {expected} at {where} {offset:,}, found {found}; {advice}")

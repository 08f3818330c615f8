"""The images of a large file: read as they are asked for, so that they need not fit in memory."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from calibration.errors import CorruptData
from calibration.idx import IdxReader, open_idx

Images = NDArray[np.uint8]
Indices = NDArray[np.int64]

SIDE = 28
CHUNK = 4096
"""Images that are read and turned at a time."""
LARGE = (128 << 20) // SIDE**2
"""From so many images on, a file is read as it is needed; smaller ones are held."""


class StreamedImages:
    """The images of an official file as an array would hold them: uint8 [N, 28, 28], upright.

    Indexed by a slice of step 1, by indices or by a mask. Slices in ascending order read the file once; going back
    starts again, and indices in any order cost a pass. Raises CorruptData where the file is not what it should be, or
    was changed since it was opened first.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, path: Path, kept: Indices | None = None) -> None:
        """Read the header. kept: which images of the file these are, in ascending order; by default all of them."""
        self.path = path
        self._stamp = _stamp(path)
        with open_idx(path) as reader:
            reader.expect(SIDE, SIDE)
            self.stored = reader.shape[0]
        self._kept = np.arange(self.stored) if kept is None else kept
        self._open = ExitStack()
        self._reader: IdxReader | None = None
        self._next = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Return `(N, 28, 28)`."""
        return len(self._kept), SIDE, SIDE

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._kept)

    def __getitem__(self, key: slice | NDArray[Any]) -> Images:
        """Return the images of a slice, of indices in their order, or of a mask."""
        if isinstance(key, slice):
            return self._read(self._kept[key])
        wanted = self._kept[key]
        order, back = np.unique(wanted, return_inverse=True)
        return self._read(order)[back]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Hold all of them, for what takes arrays only."""
        return np.array(self[:], dtype, copy=copy)

    def only(self, indices: Indices) -> StreamedImages:
        """Return those at ascending indices, without reading them."""
        return StreamedImages(self.path, self._kept[indices])

    def _read(self, wanted: Indices) -> Images:
        """Return the images at these places of the file, which are in ascending order."""
        images = np.empty((len(wanted), SIDE, SIDE), np.uint8)
        stored = np.empty((CHUNK, SIDE, SIDE), np.uint8)
        done = 0
        while done < len(wanted):
            if self._reader is None or wanted[done] < self._next:
                self._start()
            # What lies between is read too: a gzip stream cannot be entered in its middle.
            start, count = self._next, min(CHUNK, int(wanted[-1]) + 1 - self._next)
            self._pull(stored[:count])
            inside = int(np.searchsorted(wanted, start + count))
            images[done:inside] = stored[wanted[done:inside] - start].swapaxes(1, 2)
            done = inside
        return images

    def _start(self) -> None:
        self._open.close()
        if _stamp(self.path) != self._stamp:
            raise CorruptData(f"{self.path} was changed while it was read; start again")
        self._reader = self._open.enter_context(open_idx(self.path))
        self._next = 0

    def _pull(self, chunk: Images) -> None:
        assert self._reader, "the file is open"
        self._reader.read_into(chunk)
        self._next += len(chunk)
        if self._next == self.stored:
            self._reader.finish()


ImageSource: TypeAlias = Images | StreamedImages


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise CorruptData(f"{path} cannot be read ({error.strerror}); check the path") from error
    return found.st_mtime_ns, found.st_size


def chunks(count: int, size: int = CHUNK) -> list[slice]:
    """Return the slices that go through so many images once."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]

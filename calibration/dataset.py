"""Dataset: labelled glyphs, whatever they were read from."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from calibration.choice import brackets, chosen
from calibration.errors import CorruptData, EmptyData
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


Split = Literal["train", "test"]
Labels = NDArray[np.int64]

__all__ = ["SIDE", "Dataset", "ImageSource", "Images", "Labels", "Split"]


@dataclass(frozen=True)
class Dataset:
    """Labelled glyphs as a person reads them.

    images: uint8 [N, 28, 28], upright, bright ink on black, 0 to 255; of a large file read as they are asked for.
    labels: int64 [N], an index into `classes` (EMNIST's own numbering is gone).
    classes: the character each index stands for.
    origin: the words that name it, such as `emnist:balanced/test`, or `emnist:balanced[0-9]/test` of chosen classes.
    sha256: digest of images and labels in order.
    """

    images: ImageSource
    labels: Labels
    classes: tuple[str, ...]
    origin: str
    split: Split
    sha256: str

    @classmethod
    def of(cls, images: ImageSource, labels: Labels, classes: tuple[str, ...], origin: str, split: Split) -> Dataset:
        """Check and digest images and labels; raises EmptyData, CorruptData."""
        if images.dtype != np.uint8 or images.shape[1:] != (SIDE, SIDE) or labels.shape != images.shape[:1]:
            raise CorruptData(
                f"{origin}: expected uint8 images [N, 28, 28] and N labels, got {images.dtype} "
                f"{list(images.shape)} and {list(labels.shape)}; convert them first"
            )
        if not len(images):
            raise EmptyData(f"{origin} holds no images; give one that does")
        if labels.min() < 0 or labels.max() >= len(classes):
            raise CorruptData(
                f"{origin}: labels run to {labels.max()} but there are {len(classes)} classes; check them"
            )
        if labels.min() == labels.max():
            raise EmptyData(f"{origin} holds a single class, '{classes[labels[0]]}'; two or more are needed")
        if isinstance(images, np.ndarray) or len(images) < LARGE:
            images = np.ascontiguousarray(images)
        labels = np.ascontiguousarray(labels, np.int64)
        digest = hashlib.sha256()
        for part in chunks(len(images)):
            digest.update(np.ascontiguousarray(images[part]).data)
        digest.update(labels.astype("<i8").data)
        return cls(images, labels, classes, origin, split, digest.hexdigest())

    def take(self, indices: NDArray[np.int64], name: str) -> Dataset:
        """Return the images at `indices`, in that order; `name` is added to the origin in brackets."""
        return Dataset.of(
            _taken(self.images, indices), self.labels[indices], self.classes, f"{self.origin} [{name}]", self.split
        )

    def choose(self, names: tuple[str, ...]) -> Dataset:
        """Return the images of some classes alone, labelled in the order of the names; the origin says which.

        Names that are all of the classes in their order change nothing. Raises UnknownData for a class that it has
        not, EmptyData for one without images.
        """
        base, slash, split = self.origin.rpartition("/")
        classes = chosen(names, self.classes, base)
        if classes == self.classes:
            return self
        labels = relabelled(self.labels, self.classes, classes)
        kept = np.flatnonzero(labels >= 0)
        origin = f"{base}{brackets(classes)}{slash}{split}"
        refuse_absent(labels, classes, origin)
        return Dataset.of(_taken(self.images, kept), labels[kept], classes, origin, self.split)

    def held(self) -> Dataset:
        """Return it with all images in memory, for what takes them in random order again and again."""
        return self if isinstance(self.images, np.ndarray) else replace(self, images=self.images[:])

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)


def _taken(images: ImageSource, indices: NDArray[np.int64]) -> ImageSource:
    """Return the images at `indices`, of a large file without reading them where they are in ascending order."""
    if isinstance(images, np.ndarray) or bool((np.diff(indices) <= 0).any()):
        return images[indices]
    return images.only(indices)


def relabelled(labels: Labels, classes: tuple[str, ...], names: tuple[str, ...]) -> Labels:
    """Return labels into `names` instead of `classes`, -1 where a class is not among them."""
    index = {name: label for label, name in enumerate(names)}
    changed: Labels = np.array([index.get(name, -1) for name in classes], np.int64)[labels]
    return changed


def refuse_absent(labels: Labels, names: tuple[str, ...], origin: str) -> None:
    """Raise EmptyData that names the chosen classes of which there is no image."""
    counts = np.bincount(labels[labels >= 0], minlength=len(names))
    if absent := [f"'{name}'" for name, count in zip(names, counts, strict=True) if not count]:
        raise EmptyData(f"{origin} has no image of class {', '.join(absent[:10])}; leave it out of the choice")

"""Dataset: labelled glyphs, held in memory or read from a large file on demand."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from calibration.errors import CorruptData, EmptyData
from calibration.idx import IdxReader, open_idx
from calibration.spec import brackets, chosen_classes

Images = NDArray[np.uint8]
Indices = NDArray[np.int64]

SIDE = 28
CHUNK = 4096
"""Images that are read at once."""
LARGE = (128 << 20) // SIDE**2
"""Files with at least this many images are read as they are needed; smaller ones are held in memory."""


class StreamedImages:
    """The images of an official EMNIST file, indexed like an array uint8 [N, 28, 28], upright.

    Takes a slice of step 1, indices or a mask. Slices in ascending order read the file once; an earlier slice starts
    again from its beginning, and indices in any order cost one pass. Raises CorruptData where the file is invalid, or
    was changed since it was first opened.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, path: Path, selected: Indices | None = None) -> None:
        """Read the header. selected: indices of the file's images to use, in ascending order; by default all."""
        self.path = path
        self._stamp = _stamp(path)
        with open_idx(path) as reader:
            reader.expect(SIDE, SIDE)
            self.stored = reader.shape[0]
        self._selected = np.arange(self.stored) if selected is None else selected
        self._open = ExitStack()
        self._reader: IdxReader | None = None
        self._next = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Return `(N, 28, 28)`."""
        return len(self._selected), SIDE, SIDE

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._selected)

    def __getitem__(self, key: slice | NDArray[Any]) -> Images:
        """Return the images of a slice, of indices in their order, or of a mask."""
        if isinstance(key, slice):
            return self._read(self._selected[key])
        ascending, inverse = np.unique(self._selected[key], return_inverse=True)
        return self._read(ascending)[inverse]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Return all of them as an array."""
        return np.array(self[:], dtype, copy=copy)

    def subset(self, indices: Indices) -> StreamedImages:
        """Return the images at ascending indices, without reading them."""
        return StreamedImages(self.path, self._selected[indices])

    def _read(self, indices: Indices) -> Images:
        """Return the images at these indices of the file, which are in ascending order."""
        images = np.empty((len(indices), SIDE, SIDE), np.uint8)
        stored = np.empty((CHUNK, SIDE, SIDE), np.uint8)
        done = 0
        while done < len(indices):
            if self._reader is None or indices[done] < self._next:
                self._start()
            # Images in between are read too, since a gzip stream has no random access.
            start, count = self._next, min(CHUNK, int(indices[-1]) + 1 - self._next)
            self._pull(stored[:count])
            end = int(np.searchsorted(indices, start + count))
            images[done:end] = stored[indices[done:end] - start].swapaxes(1, 2)
            done = end
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
        status = path.stat()
    except OSError as error:
        raise CorruptData(f"{path} cannot be read ({error.strerror}); check the path") from error
    return status.st_mtime_ns, status.st_size


def chunks(count: int, size: int = CHUNK) -> list[slice]:
    """Return slices of at most `size` that together cover `count` images."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


Split = Literal["train", "test"]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Dataset:
    """Labelled glyphs.

    images: uint8 [N, 28, 28], upright, bright ink on black, 0 to 255; those of a large file are read on demand.
    labels: int64 [N], indices into `classes` (not EMNIST's own numbering).
    classes: the character of each index.
    origin: its name, such as `emnist:balanced/test`, or `emnist:balanced[0-9]/test` with chosen classes.
    sha256: digest of images and labels in order. found: what was found in a file that does not say how it is to be
    read, as a line for the user; else empty.
    """

    images: ImageSource
    labels: Labels
    classes: tuple[str, ...]
    origin: str
    split: Split
    sha256: str
    found: str = ""

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
            _subset(self.images, indices), self.labels[indices], self.classes, f"{self.origin} [{name}]", self.split
        )

    def choose(self, names: tuple[str, ...]) -> Dataset:
        """Return the images of some classes alone, labelled in the order of the names; the origin lists them.

        Naming all classes in their order changes nothing. Raises UnknownData for a class that the data does not have,
        EmptyData for a class without images.
        """
        base, slash, split = self.origin.rpartition("/")
        classes = chosen_classes(names, self.classes, base)
        if classes == self.classes:
            return self
        origin = f"{base}{brackets(classes)}{slash}{split}"
        indices, labels = of_classes(self.labels, self.classes, classes, origin)
        return Dataset.of(_subset(self.images, indices), labels, classes, origin, self.split)

    def in_order(self, classes: tuple[str, ...]) -> Dataset:
        """Return it labelled in this order of its classes; itself where they are others, or in this order already."""
        return self.choose(classes) if sorted(classes) == sorted(self.classes) else self

    def in_memory(self) -> Dataset:
        """Return it with all images in memory, for repeated access in random order."""
        return self if isinstance(self.images, np.ndarray) else replace(self, images=self.images[:])

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)


def _subset(images: ImageSource, indices: NDArray[np.int64]) -> ImageSource:
    """Return the images at `indices`; those of a large file are not read yet where the indices ascend."""
    if isinstance(images, np.ndarray) or bool((np.diff(indices) <= 0).any()):
        return images[indices]
    return images.subset(indices)


def of_classes(labels: Labels, classes: tuple[str, ...], names: tuple[str, ...], origin: str) -> tuple[Indices, Labels]:
    """Return the indices of the images of the classes `names`, and their labels as indices into `names`.

    Raises EmptyData with the names that have no image.
    """
    new_label = {name: label for label, name in enumerate(names)}
    changed = np.array([new_label.get(name, -1) for name in classes], np.int64)[labels]
    indices = np.flatnonzero(changed >= 0)
    counts = np.bincount(changed[indices], minlength=len(names))
    if absent := [f"'{name}'" for name, count in zip(names, counts, strict=True) if not count]:
        raise EmptyData(f"{origin} has no image of class {', '.join(absent[:10])}; leave it out of the choice")
    return indices, changed[indices]

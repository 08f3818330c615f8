"""Parquet files as Hugging Face's data sets are kept: a column of images and one of labels.

An image is a picture file (`{bytes, path}`, or the bytes alone); the names of the classes stand in the metadata that
the library `datasets` writes. Needs pyarrow, which the extra `parquet` installs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.dataset import SIDE, Images
from calibration.errors import CorruptData, EmptyData, ReaderMissing
from calibration.glyph import glyph, gray_levels
from calibration.idx import unpacks_to_too_much
from calibration.listener import listener
from calibration.picture import open_picture
from calibration.stored import Stored
from glyphpress.extras import pip_line

if TYPE_CHECKING:
    from pyarrow import DataType

_BATCH = 1024


def read_parquet(paths: list[Path]) -> Stored:
    """Read the images of a split from one or several files, in their order.

    Raises ReaderMissing without pyarrow, EmptyData, and CorruptData with file and row.
    """
    if find_spec("pyarrow") is None:
        advice = f"{pip_line('pyarrow')}, or save it as pictures"
        raise ReaderMissing(f"{paths[0]}: pyarrow is not installed: {advice}")
    files = [_File(path) for path in paths]
    rows = sum(file.rows for file in files)
    if not rows:
        raise EmptyData(f"{paths[0]} holds no images; give one that does")
    images, labels = np.empty((rows, SIDE, SIDE), np.uint8), np.empty(rows, np.int64)
    done = 0
    for file in files:
        for picture, label in file.read():
            images[done], labels[done] = picture, label
            done += 1
            if done % _BATCH == 0 or done == rows:
                listener().progress(f"reading {file.path.name}", done, rows)
    starts = np.cumsum([0, *(file.rows for file in files)])

    def place(index: int) -> str:
        which = int(np.searchsorted(starts, index, side="right")) - 1
        return f"row {index - starts[which] + 1:,} of {paths[which].name}"

    return Stored(images, labels, place, files[0].classes)


class _File:
    """One parquet file. rows: its number of images. classes: the names of the labels, where it has them."""

    def __init__(self, path: Path) -> None:
        """Read the metadata."""
        from pyarrow import ArrowException, types
        from pyarrow.parquet import ParquetFile

        self.path = path
        try:
            with ParquetFile(path) as file:
                self.rows = int(file.metadata.num_rows)
                schema = file.schema_arrow
        except (ArrowException, OSError) as error:
            raise self._damaged(error) from error
        if unpacks_to_too_much(self.rows * SIDE**2, packed := path.stat().st_size):
            raise CorruptData(f"{path}: {self.rows:,} images cannot come from {packed:,} bytes; fetch it again")
        names = schema.names
        self.label = next((name for name in names if types.is_integer(schema.field(name).type) and "label" in name), "")
        self.picture = next((name for name in names if _holds_pictures(schema.field(name).type)), "")
        if not self.picture or not self.label:
            what = "column of pictures (bytes)" if not self.picture else "column of whole numbers called label"
            listed = ", ".join(f"{name} ({schema.field(name).type})" for name in names if "\n" not in name)
            fix = "is it a set of images?" if not self.picture else "rename or number the classes so, and save it again"
            raise CorruptData(f"{path} has no {what}, only {listed or 'nothing'}; {fix}")
        self.classes = _class_names(schema.metadata or {}, self.label)

    def read(self) -> Iterator[tuple[Images, int]]:
        """Yield each image, uint8 [28, 28], with its label."""
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile

        row = 0
        try:
            with ParquetFile(self.path) as file:
                for batch in file.iter_batches(_BATCH, columns=[self.picture, self.label]):
                    columns = (batch.column(name).to_pylist() for name in (self.picture, self.label))
                    for picture, label in zip(*columns, strict=True):
                        row += 1
                        yield self._image(picture, row), self._label(label, row)
        except (ArrowException, OSError) as error:
            raise self._damaged(error) from error

    def _image(self, stored: bytes | dict[str, Any] | None, row: int) -> Images:
        """Return a picture as it is where it is 28x28, else as a glyph."""
        content = stored.get("bytes") if isinstance(stored, dict) else stored
        where = Path(f"{self.path}, row {row:,}")
        if not content:
            raise CorruptData(f"{where}: expected a picture, found none; save the set with its pictures inside")
        with open_picture(where, too_large="too many for a single character; crop it", content=content) as picture:
            if picture.size == (SIDE, SIDE):
                return gray_levels(picture)
            return glyph(picture)

    def _label(self, stored: int | None, row: int) -> int:
        if stored is None:
            raise CorruptData(f"{self.path}, row {row:,}: expected a label, found none; leave such rows out")
        return stored

    def _damaged(self, error: Exception) -> CorruptData:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return CorruptData(f"{self.path} is a damaged parquet file ({reason}); fetch or copy it again")


def _holds_pictures(kind: DataType) -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        return any(field.name == "bytes" and types.is_binary(field.type) for field in kind)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _class_names(metadata: dict[bytes, bytes], label: str) -> tuple[str, ...]:
    """Return the class names that the library `datasets` stored for a column; empty without any."""
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError):
        return ()
    usable = isinstance(names, list) and all(isinstance(name, str) and name for name in names)
    return tuple(names) if usable and len(set(names)) == len(names) else ()

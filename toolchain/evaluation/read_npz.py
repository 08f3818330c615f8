"""Stored arrays: an `.npz` unpacked only when every byte of it is whole."""

from __future__ import annotations

import io
import zipfile
import zlib
from math import prod
from typing import Any

import numpy as np

from calibration.idx import announced_bytes, unpacks_to_too_much
from targets.errors import ArtifactError

UNREADABLE = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    EOFError,
    RuntimeError,  # zipfile, of what it cannot unpack
    zipfile.BadZipFile,
    zlib.error,
    ArtifactError,
)
"""What reading a file that is damaged, or another one than was expected, may raise."""


def unpacked(content: bytes) -> dict[str, Any]:
    """Return the arrays of an `.npz`; raises one of `UNREADABLE` where it is damaged.

    Every checksum is looked at first, since numpy parses a header before its bytes are known to be whole. From memory,
    where a wrong offset cannot look like an error of the disk. Sizes come before both.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        parts = packed.infolist()
        if unpacks_to_too_much(total := announced_bytes(parts), len(content)):
            raise ValueError(f"{len(content):,} bytes that unpack to {total:,} are no result of ours")
        for part in parts:
            _refuse_false_header(packed, part)
        if damaged := packed.testzip():
            raise zipfile.BadZipFile(f"{damaged} is damaged")
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        return dict(stored)


def _refuse_false_header(packed: zipfile.ZipFile, part: zipfile.ZipInfo) -> None:
    """Raise ValueError where an array's header asks for more memory than its part unpacks to."""
    with packed.open(part) as stream:
        version = np.lib.format.read_magic(stream)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise ValueError(f"{part.filename} is an array of another version of numpy")
        shape, _, dtype = readers[version](stream)
    if prod(shape) * dtype.itemsize > part.file_size:
        raise ValueError(f"{part.filename} says that it holds {shape}, in {part.file_size:,} bytes")

"""Stored arrays: an `.npz` unpacked only when every byte of it is whole."""

from __future__ import annotations

import io
import zipfile
import zlib
from typing import Any

import numpy as np

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
    where a wrong offset cannot look like an error of the disk.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        if damaged := packed.testzip():
            raise zipfile.BadZipFile(f"{damaged} is damaged")
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        return dict(stored)

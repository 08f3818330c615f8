"""Python objects in training checkpoints that hold nothing but values, and are read without running a file's code.

`args` of argparse, paths, and numbers of numpy stand beside the weights of many checkpoints. numpy's own reader trusts
what it is given, so its numbers are read here.
"""

from __future__ import annotations

import struct
from argparse import Namespace
from pathlib import PosixPath
from typing import Any

_NUMBERS = {
    "f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "i2": "h", "i1": "b", "u8": "Q", "u4": "I", "u2": "H",
    "u1": "B", "b1": "?",
}  # fmt: skip
"""Codes of `struct` by those of numpy."""


class PickledDtype:
    """The type of a pickled number of numpy."""

    def __init__(self, code: str, *_: object) -> None:
        """Only numbers are read. Raises ValueError on any other type."""
        if code not in _NUMBERS:
            raise ValueError(f"numpy's type {code} is no number")
        self.code, self.order = _NUMBERS[code], "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Take the order of the bytes; the rest belongs to types that are no numbers."""
        self.order = ">" if state[1] == ">" else "<"


def number_of(dtype: PickledDtype, content: bytes) -> float | int | bool:
    """Return a pickled number of numpy as one of Python. Raises struct.error when its bytes do not fit."""
    number: float | int | bool = struct.unpack(dtype.order + dtype.code, content)[0]
    return number


PLAIN_OBJECTS: list[Any] = [
    Namespace,
    PosixPath,
    (PickledDtype, "numpy.dtype"),
    (number_of, "numpy._core.multiarray.scalar"),
    (number_of, "numpy.core.multiarray.scalar"),
]
"""For `torch.serialization.safe_globals`: what stands for which name in a pickle."""

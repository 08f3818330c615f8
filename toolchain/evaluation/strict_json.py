"""What comes back from JSON: every value of the very type that was stored, or an error that is caught where it is read.

numpy takes "1", true and null for numbers, and 1.5 for an integer; a verdict must not stand on such a reading.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from targets.session import LARGEST


def members(values: Any, *kinds: type) -> list[Any]:
    """Return a list whose members are of these very types; raises TypeError on anything else."""
    if type(values) is not list:
        raise TypeError(f"a list is missing where {_short(values)} stands")
    if wrong := [value for value in values if type(value) not in kinds]:
        raise TypeError(f"{_short(wrong[0])} stands where only {' or '.join(kind.__name__ for kind in kinds)} may")
    return values


def integers(values: Any) -> NDArray[np.int64]:
    """Return a list of whole numbers as int64 [N]; raises TypeError or OverflowError on anything else."""
    return np.array(members(values, int), np.int64)


def shares(values: Any) -> NDArray[np.float32]:
    """Return a list of numbers from 0 to 1 as float32 [N]; raises TypeError, ValueError or OverflowError."""
    exact = np.array(members(values, int, float), np.float64)
    if not ((exact >= 0) & (exact <= 1)).all():  # before rounding could bring one back to 1
        raise ValueError("a confidence is no probability")
    return exact.astype(np.float32)


def count(value: Any) -> int:
    """Return a whole number of 0 or more that fits an int64; raises TypeError on anything else."""
    if type(value) is not int or not 0 <= value <= LARGEST:
        raise TypeError(f"{_short(value)} is no count")
    return value


def text(value: Any) -> str:
    """Return a string; raises TypeError on anything else."""
    if type(value) is not str:
        raise TypeError(f"{_short(value)} is no text")
    return value


def told(error: Exception) -> str:
    """Return what an error says of the stored values, for people."""
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:40] + "…"

"""The error of a tensor against the exact one, over many images."""

from __future__ import annotations

from dataclasses import dataclass
from math import log10, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from targets.host.runtime_session import TensorCodec


@dataclass(frozen=True)
class Error:
    """How far values lie from the exact ones.

    signal, noise: root mean square of the exact values and of the differences. cosine: of the two tensors, None where
    one is all zero. saturated: the share of values that the integer range cut off, None where there is none.
    """

    signal: float
    noise: float
    cosine: float | None
    saturated: float | None

    @property
    def sqnr_db(self) -> float | None:
        """The ratio of signal to quantization noise in decibels, None where either is zero."""
        return 20 * log10(self.signal / self.noise) if self.signal and self.noise else None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        return {"sqnr_db": self.sqnr_db} | vars(self)


class ErrorSums:
    """Sums over batches, in float64."""

    def __init__(self, port: TensorCodec | None) -> None:
        """Take how the integers of the tensor stand for numbers, None where it holds floats."""
        self._port = port
        self._sums = np.zeros(4)
        self._values = self._cut = 0

    def add(self, exact: NDArray[np.float32], seen: NDArray[np.float32]) -> None:
        """Take in a batch of one tensor."""
        x, y = (values.astype(np.float64).reshape(-1) for values in (exact, seen))
        self._sums += (x @ x, y @ y, x @ y, (y - x) @ (y - x))
        self._values += x.size
        if self._port is not None:
            self._cut += _cut_off(self._port, x)

    def error(self) -> Error:
        """Return the error of everything that was added."""
        power, other, both, noise = self._sums
        cosine = float(both / sqrt(power * other)) if power and other else None
        saturated = self._cut / self._values if self._port is not None else None
        return Error(sqrt(power / self._values), sqrt(noise / self._values), cosine, saturated)


def _cut_off(port: TensorCodec, exact: NDArray[np.float64]) -> int:
    """Return how many values lie beyond the range by more than the half step that rounding costs anyway."""
    limits = np.iinfo(port.spec.dtype)
    low, high = (port.scale * (end - port.zero_point) for end in (limits.min, limits.max))
    half = port.scale / 2
    return int(np.count_nonzero((exact < low - half) | (exact > high + half)))

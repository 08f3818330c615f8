"""Statistics of tensors over a calibration set: their extremes, and how often they hold which value."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolchain.core.errors import StageError
from toolchain.formats.activations import Values

BINS = 2048
"""Of a histogram while a range is chosen: eight to a step of 8 bits."""
SMOOTHING = 0.95
"""Weight of what was seen before, in the moving average of extremes (what TFLite's tools take)."""


@dataclass(frozen=True, eq=False)
class TensorStatistics:
    """What one tensor held. lowest, highest: over all images; average: the moving average of each image's extremes.

    counts: int64 [BINS], values between lowest and highest in bins of one width, without the exact zeros. Zeros are
    counted apart: every scheme represents them exactly, and after a ReLU they would bury the rest.
    """

    lowest: float
    highest: float
    average: tuple[float, float]
    counts: NDArray[np.int64]
    zeros: int

    @property
    def edges(self) -> NDArray[np.float64]:
        """Float64 [BINS + 1], where the bins begin and end."""
        return np.linspace(self.lowest, self.highest, len(self.counts) + 1)


def collect_statistics(run: Callable[[], Iterator[Values]], source: str) -> dict[str, TensorStatistics]:
    """Return what each tensor held; `run` reads the images and is called twice, for the extremes and for the bins.

    source: the file that is observed, for messages.
    Raises StageError naming a tensor that is not finite.
    """
    extremes: dict[str, tuple[float, float]] = {}
    averages: dict[str, tuple[float, float]] = {}
    for values in run():
        for name, held in values.items():
            low, high = float(held.min()), float(held.max())
            if not (np.isfinite(low) and np.isfinite(high)):
                raise StageError(
                    f"{source}: tensor {name} holds NaN or infinity on a calibration image; fix the float model"
                )
            before, mean = extremes.get(name, (low, high)), averages.get(name, (low, high))
            extremes[name] = min(before[0], low), max(before[1], high)
            averages[name] = tuple(SMOOTHING * a + (1 - SMOOTHING) * b for a, b in zip(mean, (low, high), strict=True))  # type: ignore[assignment]
    counts = {name: np.zeros(BINS, np.int64) for name in extremes}
    zeros = dict.fromkeys(extremes, 0)
    for values in run():
        for name, held in values.items():
            other = held[held != 0]
            zeros[name] += held.size - other.size
            counts[name] += _counted(other, *extremes[name])
    return {name: TensorStatistics(*extremes[name], averages[name], counts[name], zeros[name]) for name in extremes}


def _counted(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.int64]:
    share = (values.astype(np.float64) - low) * (BINS / (high - low) if high > low else 0.0)
    return np.bincount(np.minimum(share.astype(np.int64), BINS - 1), minlength=BINS)

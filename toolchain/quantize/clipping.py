"""Choose the range of each tensor from what it held on a calibration set.

Values outside the range are clipped; a narrower range gives those inside finer steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolchain.core.errors import StageError
from toolchain.formats.trace import Values
from toolchain.quantize.step import Calibration

BINS = 2048
"""Bins of a histogram while a range is chosen: eight for each step of 8 bits."""
SMOOTHING = 0.95
"""Weight of earlier images in the moving average of extremes, as in TFLite's tools."""
Bounds = tuple[float, float]
_SHARES = np.arange(1, 101) / 100
"""Shares of the whole range that a search tries."""
_EMPTY_LEVEL = 1e-4
"""Count of a level without values: with 0, clipping next to a gap would have an infinite divergence."""


@dataclass(frozen=True, eq=False)
class TensorStatistics:
    """What one tensor held. lowest, highest: over all images; average: the moving average of each image's extremes.

    counts: int64 [BINS], values between lowest and highest in bins of equal width, without exact zeros. Zeros are
    counted apart: every scheme represents them exactly, and after a ReLU they would dominate the histogram.
    """

    lowest: float
    highest: float
    average: tuple[float, float]
    counts: NDArray[np.int64]
    zeros: int

    @property
    def edges(self) -> NDArray[np.float64]:
        """Return float64 [BINS + 1], the edges of the bins."""
        return np.linspace(self.lowest, self.highest, len(self.counts) + 1)


def collect_statistics(run: Callable[[], Iterator[Values]], source: str) -> dict[str, TensorStatistics]:
    """Return the statistics of each tensor. `run` yields its values and is called twice, for extremes and for counts.

    source: name of the file, for messages. Raises StageError that names a tensor that is not finite.
    """
    extremes: dict[str, tuple[float, float]] = {}
    averages: dict[str, tuple[float, float]] = {}
    for values in run():
        for name, tensor in values.items():
            low, high = float(tensor.min()), float(tensor.max())
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
        for name, tensor in values.items():
            nonzero = tensor[tensor != 0]
            zeros[name] += tensor.size - nonzero.size
            counts[name] += _histogram(nonzero, *extremes[name])
    return {name: TensorStatistics(*extremes[name], averages[name], counts[name], zeros[name]) for name in extremes}


def _histogram(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.int64]:
    share = (values.astype(np.float64) - low) * (BINS / (high - low) if high > low else 0.0)
    return np.bincount(np.minimum(share.astype(np.int64), BINS - 1), minlength=BINS)


def choose_range(statistics: TensorStatistics, method: Calibration, *, percentile: float, levels: int) -> Bounds:
    """Return the range [low, high], which always holds 0, since padding and ReLU need it exactly.

    A tensor that held only zeros, as after a ReLU that is never active, gets [0, 1]: with tiny steps the biases of the
    layers around it would overflow.

    `min-max`: the extremes. `moving-average`: the average of each image's extremes (Jacob, arXiv:1712.05877).
    `percentile`: `percentile` percent of all values, with half of the rest cut off at each end. `entropy`: the range
    whose quantized histogram diverges least from the whole one (Migacz, "8-bit inference with TensorRT", GTC 2017).
    `mse`: least mean squared error, clipped and rounded, at `levels` levels (Banner, arXiv:1810.05723, searched).
    """
    rules: dict[Calibration, Callable[[], Bounds]] = {
        "min-max": lambda: (statistics.lowest, statistics.highest),
        "moving-average": lambda: statistics.average,
        "percentile": lambda: _percentile(statistics, percentile / 100),
        "entropy": lambda: _least_divergence(statistics, levels),
        "mse": lambda: _least_error(statistics, levels),
    }
    if statistics.lowest == statistics.highest == 0:
        return 0.0, 1.0
    low, high = rules[method]()
    # + 0.0 turns a negative zero into zero, which is written differently.
    return min(low, 0.0) + 0.0, max(high, 0.0) + 0.0


def _percentile(statistics: TensorStatistics, share: float) -> Bounds:
    edges, counts = statistics.edges, statistics.counts.copy()
    counts[np.searchsorted(edges[1:-1], 0.0, side="right")] += statistics.zeros
    mass = np.concatenate([[0], np.cumsum(counts)]) / max(1, counts.sum())
    tail = (1 - share) / 2
    low, high = np.interp([tail, 1 - tail], mass, edges)
    return float(low), float(high)


def _least_divergence(statistics: TensorStatistics, levels: int) -> Bounds:
    """Search both ends in turn, as `_least_error` does, in strides of the bins of one level."""
    edges, counts = statistics.edges, statistics.counts.astype(np.float64)
    bins, zero = len(counts), int(np.searchsorted(edges[1:-1], 0.0, side="right"))
    first, last, stride = 0, bins, max(1, bins // levels)
    for _ in range(2):
        lasts = range(bins, max(zero, min(first + levels, bins)) - 1, -stride)
        last = min(lasts, key=lambda end: _divergence(counts, first, end, levels))
        firsts = range(0, min(zero, max(last - levels, 0)) + 1, stride)
        first = min(firsts, key=lambda start: _divergence(counts, start, last, levels))
    return float(edges[first]), float(edges[last])


def _divergence(counts: NDArray[np.float64], first: int, last: int, levels: int) -> float:
    """Return the Kullback-Leibler divergence of the clipped histogram from itself in `levels` levels."""
    inside = counts[first:last]
    clipped = inside.copy()
    clipped[0] += counts[:first].sum()
    clipped[-1] += counts[last:].sum()
    level = np.arange(len(inside)) * levels // len(inside)
    # A level's count is spread over its bins that hold values, as the outer ones do after clipping.
    occupied = clipped > 0
    mean = np.bincount(level, inside) / np.maximum(1, np.bincount(level, occupied))
    coarse = np.maximum(mean[level], _EMPTY_LEVEL)[occupied]
    p, q = clipped[occupied] / clipped.sum(), coarse / coarse.sum()
    return float((p * np.log(p / q)).sum())


def _least_error(statistics: TensorStatistics, levels: int) -> Bounds:
    """Search the upper and the lower end, twice: each depends on the other through the width of a step."""
    low, high = min(statistics.lowest, 0.0), max(statistics.highest, 0.0)
    widest = low, high
    for _ in range(2):
        highs = [_error(statistics, low, share * widest[1], levels) for share in _SHARES]
        high = float(_SHARES[_last_least(highs)] * widest[1])
        lows = [_error(statistics, share * widest[0], high, levels) for share in _SHARES]
        low = float(_SHARES[_last_least(lows)] * widest[0])
    return low, high


def _last_least(errors: list[float]) -> int:
    return len(errors) - 1 - int(np.argmin(errors[::-1]))


def _error(statistics: TensorStatistics, low: float, high: float, levels: int) -> float:
    """Return the squared error of the bins' centres, rounded as the runtimes do, with an integer zero point."""
    step = (high - low) / (levels - 1)
    if not step > 0:
        return np.inf
    middles = (statistics.edges[1:] + statistics.edges[:-1]) / 2
    zero = round(-low / step)
    rounded = (np.clip(np.rint(middles / step) + zero, 0, levels - 1) - zero) * step
    return float(((middles - rounded) ** 2 * statistics.counts).sum())

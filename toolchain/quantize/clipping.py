"""Choose the range of a tensor by what it held: what lies outside is clipped, what lies inside gets finer steps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from toolchain.quantize.step import Calibration
from toolchain.quantize.tensor_statistics import TensorStatistics

Bounds = tuple[float, float]
_SHARES = np.arange(1, 101) / 100
"""Of the whole range, what a search tries."""
_ALMOST_NOTHING = 1e-4
"""Of a value: what a level without any counts as, or clipping next to a gap would be infinitely wrong."""


def chosen(seen: TensorStatistics, method: Calibration, *, percentile: float, levels: int) -> Bounds:
    """Return the range [low, high], which always holds 0, since padding and ReLU need it exactly.

    A tensor that held nothing else, as behind a ReLU that is never active, gets [0, 1]: steps of next to nothing would
    leave no room for the weights and biases of the layers around it.

    `min-max`: all that was seen. `moving-average`: the average of each image's extremes (Jacob, arXiv:1712.05877).
    `percentile`: `percentile` percent of all values, half of the rest cut off at each end. `entropy`: the range whose
    quantized histogram diverges least from the whole one (Migacz, "8-bit inference with TensorRT", GTC 2017).
    `mse`: least mean squared error, clipped and rounded, at `levels` levels (Banner, arXiv:1810.05723, searched).
    """
    rules: dict[Calibration, Callable[[], Bounds]] = {
        "min-max": lambda: (seen.lowest, seen.highest),
        "moving-average": lambda: seen.average,
        "percentile": lambda: _percentile(seen, percentile / 100),
        "entropy": lambda: _least_divergence(seen, levels),
        "mse": lambda: _least_error(seen, levels),
    }
    if seen.lowest == seen.highest == 0:
        return 0.0, 1.0
    low, high = rules[method]()
    # + 0.0, since a negative zero would be written as one
    return min(low, 0.0) + 0.0, max(high, 0.0) + 0.0


def _percentile(seen: TensorStatistics, share: float) -> Bounds:
    edges, counts = seen.edges, seen.counts.copy()
    counts[np.searchsorted(edges[1:-1], 0.0, side="right")] += seen.zeros
    mass = np.concatenate([[0], np.cumsum(counts)]) / max(1, counts.sum())
    tail = (1 - share) / 2
    low, high = np.interp([tail, 1 - tail], mass, edges)
    return float(low), float(high)


def _least_divergence(seen: TensorStatistics, levels: int) -> Bounds:
    """Search both ends in turn, as `_least_error` does, a level's worth of bins at a time."""
    edges, counts = seen.edges, seen.counts.astype(np.float64)
    bins, zero = len(counts), int(np.searchsorted(edges[1:-1], 0.0, side="right"))
    first, last, stride = 0, bins, max(1, bins // levels)
    for _ in range(2):
        lasts = range(bins, max(zero, min(first + levels, bins)) - 1, -stride)
        last = min(lasts, key=lambda end: _divergence(counts, first, end, levels))
        firsts = range(0, min(zero, max(last - levels, 0)) + 1, stride)
        first = min(firsts, key=lambda start: _divergence(counts, start, last, levels))
    return float(edges[first]), float(edges[last])


def _divergence(counts: NDArray[np.float64], first: int, last: int, levels: int) -> float:
    """Return the Kullback-Leibler divergence of the clipped histogram from its version in `levels` levels."""
    inside = counts[first:last]
    clipped = inside.copy()
    clipped[0] += counts[:first].sum()
    clipped[-1] += counts[last:].sum()
    level = np.arange(len(inside)) * levels // len(inside)
    # A level's mass is spread over those of its bins that hold something, which the last one does after clipping.
    held = clipped > 0
    mean = np.bincount(level, inside) / np.maximum(1, np.bincount(level, held))
    coarse = np.maximum(mean[level], _ALMOST_NOTHING)[held]
    p, q = clipped[held] / clipped.sum(), coarse / coarse.sum()
    return float((p * np.log(p / q)).sum())


def _least_error(seen: TensorStatistics, levels: int) -> Bounds:
    """Search the upper end, the lower end, and both again: each depends on the other through the width of a step."""
    low, high = min(seen.lowest, 0.0), max(seen.highest, 0.0)
    widest = low, high
    for _ in range(2):
        highs = [_error(seen, low, share * widest[1], levels) for share in _SHARES]
        high = float(_SHARES[_last_least(highs)] * widest[1])
        lows = [_error(seen, share * widest[0], high, levels) for share in _SHARES]
        low = float(_SHARES[_last_least(lows)] * widest[0])
    return low, high


def _last_least(errors: list[float]) -> int:
    return len(errors) - 1 - int(np.argmin(errors[::-1]))


def _error(seen: TensorStatistics, low: float, high: float, levels: int) -> float:
    """Return the sum of squared errors of the bins' middles, rounded as the runtimes do, with a whole zero point."""
    step = (high - low) / (levels - 1)
    if not step > 0:
        return np.inf
    middles = (seen.edges[1:] + seen.edges[:-1]) / 2
    zero = round(-low / step)
    rounded = (np.clip(np.rint(middles / step) + zero, 0, levels - 1) - zero) * step
    return float(((middles - rounded) ** 2 * seen.counts).sum())

"""Change points: where a series of figures moved to another level and stayed there.

E-divisive (D. S. Matteson and N. A. James, "A Nonparametric Approach for Multiple Change Point Analysis of Multivariate
Data", JASA 109, 2014), as MongoDB and Hunter use it for performance (D. Daly et al., "The Use of Change Point Detection
to Identify Software Performance Regressions in a Continuous Integration System", ICPE 2020; M. Fleming et al., "Hunter:
Using Change Point Detection to Hunt for Performance Regressions", ICPE 2023). The series is split where the energy
distance between both sides is largest; the split is kept if few permutations of the values within the segments reach
it; then the segments are split further. Of a series without a change the first split is kept with the chance `LEVEL`.

Values far outside of the others are first clipped, whatever their order, so that an outlier which is ten times as far
off does not hide a step; that chance stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVEL = 0.01
"""The chance of a change point where there is none; a history is looked at after every commit."""
PERMUTATIONS = 499
MIN_SEGMENT = 4
"""Fewest values on either side: of 3 values even a clear step is no rare event among the orders of 20."""
PLACED = 0.99
"""Confidence of the bounds of a place: whoever wrote a commit that is named will be asked about it."""
_SETTLED = 5
"""Rounds after which the medians of both sides stay as they are."""
_EXACT = 40
"""Fewest values of both sides together whose rank sum is taken as normally distributed."""


def change_points(values: Sequence[float], *, level: float = LEVEL, seed: int = 0) -> list[int]:
    """Return the index of the first value of each new level, in order; none for fewer than two segments of values."""
    series, edges, random = _clipped(np.asarray(values, np.float64)), [0, len(values)], np.random.default_rng(seed)
    while True:
        splits = [(*_best_split(series[start:end]), start) for start, end in pairwise(edges)]
        best, split, start = max(splits)
        if best <= 0 or not _significant(series, edges, best, level, random):
            return edges[1:-1]
        edges = sorted([*edges, start + split])


def _clipped(values: Floats) -> Floats:
    """Return the values with those clipped that lie further outside of the middle four fifths than these are wide."""
    low, high = np.quantile(values, [0.1, 0.9]) if len(values) else (0.0, 0.0)
    width = high - low
    # Where nearly all values are equal, every other one counts.
    return np.clip(values, low - width, high + width) if width > 0 else values


def _best_split(values: Floats) -> tuple[float, int]:
    """Return the largest statistic of a split of a segment, and where that is; 0 for a segment that is too short.

    The statistic of two sides of m and n values is m n / (m + n) times their energy distance: twice the mean distance
    between the sides, less the mean distance within each. The right side may end anywhere, so that a level which does
    not last until the end of the segment is found too.
    """
    if len(values) < 2 * MIN_SEGMENT:
        return 0.0, 0
    sums = np.zeros((len(values) + 1, len(values) + 1))
    sums[1:, 1:] = np.abs(values[:, None] - values[None, :]).cumsum(axis=0).cumsum(axis=1)
    diagonal = sums.diagonal()
    split, end = _sides(len(values))
    m, n = split, end - split
    # Sums over the pairs of the left side, of the right side, and of one value of each.
    left, across = diagonal[split] / 2, sums[split, end] - diagonal[split]
    right = diagonal[end] / 2 - left - across
    energy = 2 * across / (m * n) - left / (m * (m - 1) / 2) - right / (n * (n - 1) / 2)
    statistic = m * n / (m + n) * energy
    best = int(statistic.argmax())
    return float(statistic[best]), int(split[best])


@lru_cache(maxsize=64)
def _sides(count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return every place of a split, and every end of its right side, in a segment of `count` values."""
    split, end = np.triu_indices(count + 1, MIN_SEGMENT)
    long_enough = split >= MIN_SEGMENT
    return split[long_enough], end[long_enough]


def _significant(series: Floats, edges: Sequence[int], best: float, level: float, random: np.random.Generator) -> bool:
    """Return whether few orders of the values within the segments have a split as good as the best one."""
    reached, most = 1, level * (PERMUTATIONS + 1)
    for _ in range(PERMUTATIONS):
        orders = (random.permutation(series[start:end]) for start, end in pairwise(edges))
        reached += any(_best_split(order)[0] >= best * (1 - 1e-12) for order in orders)
        if reached > most:
            return False
    return True


@dataclass(frozen=True)
class Place:
    """The index of the first value of a new level: the likeliest one, and the earliest and latest that it may be."""

    likeliest: int
    earliest: int
    latest: int


def place(values: Sequence[float], start: int, index: int, end: int, confidence: float = PLACED) -> Place:
    """Return where the level of the values from `start` to before `end` changes; index: where a split found it.

    A split keeps `MIN_SEGMENT` values on either side, so it lies beside a change that is nearer to an end. Here every
    place counts: each is as likely as the distances of all values from the median of their side are small, by a Laplace
    distribution, in which a value far outside counts for no more than one at the other level. The bounds hold the place
    with `confidence`.
    """
    series, first = np.asarray(values[start:end], np.float64), index - start
    for _ in range(_SETTLED):
        distances = np.abs(series[:, None] - [np.median(series[:first]), np.median(series[first:])])
        before, after = distances.cumsum(axis=0).T
        costs = (before + after[-1] - after)[:-1]
        likeliest = int(costs.argmin()) + 1
        if likeliest == first:
            break
        first = likeliest
    scale = costs.min() / max(len(series) - 2, 1)
    shares = np.exp(-(costs - costs.min()) / scale) if scale > 0 else (costs == costs.min()).astype(np.float64)
    ordered = np.argsort(-shares, kind="stable")
    enough = int(np.searchsorted(shares[ordered].cumsum(), confidence * shares.sum())) + 1
    kept = ordered[:enough] + 1
    return Place(start + first, start + int(kept.min()), start + int(kept.max()))


@dataclass(frozen=True)
class Shift:
    """By how much the values after a change differ from those before: the median difference, with its interval.

    low, high: None where there are too few values for the confidence.
    """

    median: float
    low: float | None
    high: float | None


def shift(before: Sequence[float], after: Sequence[float], confidence: float = 0.95) -> Shift:
    """Return the Hodges-Lehmann estimate of a shift and the interval of the rank sum test, which is exact.

    An outlier among the values hardly moves either. Both sides need a value.
    """
    differences = np.sort(np.subtract.outer(np.asarray(after, np.float64), np.asarray(before, np.float64)), axis=None)
    outside = _outside(len(before), len(after), (1 - confidence) / 2)
    median = float(np.median(differences))
    if outside is None:
        return Shift(median, None, None)
    return Shift(median, float(differences[outside]), float(differences[-1 - outside]))


def _outside(m: int, n: int, tail: float) -> int | None:
    """Return how many of the m n differences lie below an interval with this tail; None if not even all of them reach.

    The interval from the k-th smallest to the k-th largest leaves out the shifts whose statistic U is below k.
    """
    if m + n >= _EXACT:
        mean, deviation = m * n / 2, math.sqrt(m * n * (m + n + 1) / 12)
        return max(0, math.floor(mean - 0.5 + NormalDist().inv_cdf(tail) * deviation))
    counts = _rank_sums(m, n)
    total, below, k = math.comb(m + n, n), 0, -1
    for count in counts:
        below += count
        if below > tail * total:
            break
        k += 1
    return k if k >= 0 else None


@lru_cache(maxsize=64)
def _rank_sums(m: int, n: int) -> tuple[int, ...]:
    """Return in how many orders of m and n values the statistic U is 0, 1, ... m n (Mann and Whitney 1947)."""
    counts: dict[tuple[int, int], tuple[int, ...]] = {(0, j): (1,) for j in range(n + 1)}
    counts |= {(i, 0): (1,) for i in range(m + 1)}
    for i in range(1, m + 1):
        for j in range(1, n + 1):
            # The largest value is one of the i, above all j others, or one of the j.
            sums = [0] * (i * j + 1)
            for u, count in enumerate(counts[i - 1, j]):
                sums[u + j] += count
            for u, count in enumerate(counts[i, j - 1]):
                sums[u] += count
            counts[i, j] = tuple(sums)
    return counts[m, n]

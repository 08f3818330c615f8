"""How sure a percentile of a latency is, and its ratio to that of another artifact timed in the same rounds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from targets.session import Timings
from toolchain.core.errors import EvidenceError
from toolchain.stats.bootstrap import MIN_ROUNDS, bounds, resampled, trimmed_mean

INTERVAL = 0.975
"""Each side of the 95 % interval that people are shown."""
GRID = 1000
SLOWER = 1.02
"""From here on a file is called slower: less is nobody's concern, and the same file twice is never told apart by it."""


@dataclass(frozen=True)
class LatencyRatio:
    """How many times as long a candidate takes as the first artifact, with an interval, by default of 95 %.

    ratio: geometric mean over the rounds of the ratio of a percentile in that round, so that drift cancels, without the
    fifth of the rounds at either end, so that a burst of other work does not decide. low, high: its bounds by a
    bootstrap over rounds, None below 3 of them. rounds: how many there were, or groups of rounds where one held too few
    samples for the percentile.
    """

    ratio: float
    low: float | None
    high: float | None
    rounds: int

    @property
    def slower(self) -> bool:
        """Whether the candidate is shown to take longer by more than 2 %."""
        return self.low is not None and self.low > SLOWER

    @classmethod
    def of(
        cls, candidate: Timings, base: Timings, *, q: float = 50.0, confidence: float = INTERVAL, seed: int = 0
    ) -> LatencyRatio | None:
        """Compare two Timings of one `time_interleaved`, or return None where either cannot carry the percentile.

        confidence: of each bound, one-sided. Raises EvidenceError on timings that were not taken together.
        """
        if len(candidate.blocks) != len(base.blocks) or candidate.batch != base.batch:
            raise EvidenceError("these timings were not taken in the same rounds; time both in one run")
        groups = _groups(candidate, base, q)
        logs = np.log(_percentiles(candidate, q, groups)) - np.log(_percentiles(base, q, groups))
        if candidate.percentile(q) is None or base.percentile(q) is None:
            return None
        rounds, mean = len(logs), float(trimmed_mean(logs, np.ones((1, len(logs))))[0])
        if rounds < MIN_ROUNDS:
            return cls(math.exp(mean), None, None, rounds)
        low, high = bounds(trimmed_mean(logs, resampled(rounds, seed)), mean, rounds, confidence)
        return cls(math.exp(mean), math.exp(low), math.exp(high), rounds)

    @classmethod
    def apart(
        cls, candidate: Timings, base: Timings, *, confidence: float = INTERVAL, seed: int = 0
    ) -> LatencyRatio | None:
        """Compare the medians of two runs that were not taken together, or return None where either has no median.

        Their rounds are no pairs, so each run is resampled by itself. The interval holds how much rounds differ within
        a run; a change of the machine between the two counts as a difference of the files.
        """
        if candidate.percentile(50) is None or base.percentile(50) is None:
            return None
        logs = [np.log([float(np.median(block)) for block in _blocks(timings)]) for timings in (candidate, base)]
        candidate_mean, base_mean = (float(trimmed_mean(log, np.ones((1, len(log))))[0]) for log in logs)
        rounds, mean = min(map(len, logs)), candidate_mean - base_mean
        if rounds < MIN_ROUNDS:
            return cls(math.exp(mean), None, None, rounds)
        candidate_draws, base_draws = (trimmed_mean(log, resampled(len(log), seed + k)) for k, log in enumerate(logs))
        low, high = bounds(candidate_draws - base_draws, mean, rounds, confidence)
        return cls(math.exp(mean), math.exp(low), math.exp(high), rounds)


def samples_for(q: float) -> int:
    """Return how many single inferences carry a percentile: ten beyond it, for the median ten on each side."""
    return math.ceil(round(1000 / min(q, 100 - q), 6))


def latency_bounds(
    timings: Timings, q: float, *, confidence: float = INTERVAL, seed: int = 0
) -> tuple[float, float] | None:
    """Return the lower and upper bound, each one-sided at `confidence`, of `timings.percentile(q)` in nanoseconds.

    By a bootstrap over rounds of the percentile of all samples together, so that a slow spell counts as often as it
    occurred. It holds for the machine of these rounds only: where rounds differ by 5 %, the P95 of endless rounds was
    simulated to lie above the upper bound at 99 % in 7 of 100 runs of 20 rounds, below the lower one in none; where
    one round in ten is far slower, far more often. None below 3 rounds and where the samples cannot carry the
    percentile. Raises EvidenceError on samples that take no time.
    """
    blocks, point = _blocks(timings), timings.percentile(q)
    rounds = len(blocks)
    if point is None or rounds < MIN_ROUNDS:
        return None
    # At few of the values, since the percentile of a resample is only looked up among them.
    ranks = np.linspace(0, len(timings.worked_ns) - 1, min(GRID, len(timings.worked_ns))).round().astype(int)
    values = np.sort(timings.worked_ns)[ranks]
    below = np.array([np.searchsorted(np.sort(block), values, side="right") for block in blocks], np.float64)
    weights = resampled(rounds, seed)
    counts = weights @ np.array([len(block) for block in blocks], np.float64)
    percentiles = values[((weights @ below) >= counts[:, None] * q / 100).argmax(axis=1)]
    low, high = bounds(np.log(percentiles), math.log(point), rounds, confidence)
    return math.exp(low), math.exp(high)


def _blocks(timings: Timings) -> list[NDArray[np.int64]]:
    blocks = np.split(timings.worked_ns, timings.blocks[1:])
    if min(map(len, blocks)) == 0 or timings.worked_ns.min() <= 0:
        raise EvidenceError("a block of timings is empty or takes no time; time it again")
    return blocks


def _groups(candidate: Timings, base: Timings, q: float) -> list[NDArray[np.int64]]:
    """Return which rounds to take together, as indices: one by one, or as few as carry a tail.

    A median has no lean however few its samples are, so it needs no company.
    """
    rounds = np.arange(len(base.blocks))
    least = min(len(block) for timings in (candidate, base) for block in _blocks(timings))
    together = 1 if q == 50 else math.ceil(samples_for(q) / least)
    return np.array_split(rounds, max(len(rounds) // together, 1))


def _percentiles(timings: Timings, q: float, groups: list[NDArray[np.int64]]) -> NDArray[np.float64]:
    """Return the percentile of each group of rounds, nanoseconds [groups]."""
    blocks = _blocks(timings)
    return np.array([np.percentile(np.concatenate([blocks[k] for k in group]), q) for group in groups])

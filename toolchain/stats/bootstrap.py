"""Bootstrap over rounds: how sure a figure is that was measured in rounds on a machine that is not idle.

Whole rounds are drawn, since the samples within one round are not independent: a busy spell slows many in a row.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 4000
MIN_ROUNDS = 3
"""Fewer rounds do not show how much rounds differ."""
TRIM = 0.2
"""Share of the rounds left out at either end. Other processes make some rounds outliers: on a busy machine the bounds
of the untrimmed mean of P50 ratios were two to five times as wide."""
SHOWN = 0.01
"""The thinnest tail that is read off the resamples; forty of the 4,000 lie beyond it."""


@lru_cache(maxsize=4)
def resampled(rounds: int, seed: int) -> NDArray[np.float64]:
    """Return how often each round is drawn in each resample, float64 [RESAMPLES, rounds], read-only."""
    draws = np.random.default_rng(seed).multinomial(rounds, np.full(rounds, 1 / rounds), RESAMPLES)
    weights = draws.astype(np.float64)
    weights.flags.writeable = False
    return weights


def trimmed_mean(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of values [rounds] without the fifth at either end, for each row of weights [rows, rounds].

    A fifth is rounded down, so that of up to four rounds all count. The weights of each row add up to the rounds.
    """
    order, rounds = np.argsort(values), len(values)
    cut = int(TRIM * rounds)
    inner_weights = np.diff(np.clip(np.cumsum(weights[:, order], axis=1), cut, rounds - cut), axis=1, prepend=cut)
    return np.asarray(inner_weights @ values[order] / (rounds - 2 * cut), dtype=np.float64)


def bounds(resamples: NDArray[np.float64], point: float, rounds: int, confidence: float) -> tuple[float, float]:
    """Return the lower and upper bound of a figure, each one-sided at `confidence`, from its resamples [RESAMPLES].

    The percentile interval, expanded for few rounds as in Hesterberg, "What Teachers Should Know About the Bootstrap"
    (2015): of n rounds the quantile is that of the t distribution with n - 1 degrees of freedom, times
    sqrt(n / (n - 1)). A tail thinner than `SHOWN` is extrapolated from the distance at `SHOWN` as that of a normal
    distribution, because no number of resamples shows what so few rounds do not contain.
    """
    reach = expansion(rounds, confidence)
    tail_start = min(reach, NormalDist().inv_cdf(1 - SHOWN))
    tail = NormalDist().cdf(-tail_start)
    low, high = np.quantile(resamples, [tail, 1 - tail])
    return point - max(point - low, 0.0) * reach / tail_start, point + max(high - point, 0.0) * reach / tail_start


def expansion(rounds: int, confidence: float) -> float:
    """Return how many bootstrap standard deviations a one-sided bound lies from the figure."""
    from scipy.special import stdtrit

    return float(stdtrit(rounds - 1, confidence)) * math.sqrt(rounds / (rounds - 1))

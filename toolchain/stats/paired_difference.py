"""Score interval for the difference of two paired proportions.

T. Tango (1998), Equivalence test and confidence interval for the difference in proportions for the paired-sample
design, Statistics in Medicine 17:891-908, equations (24) to (26). Of `count` pairs, `lost` are right only at the
baseline and `gained` only at the candidate; the drop is P(lost) - P(gained), positive when the candidate reads worse.

Every function takes counts as numbers or as arrays that broadcast, so that a simulation of thousands of draws is one
call, and gives float64 of the broadcast shape.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from toolchain.core.errors import EvidenceError
from toolchain.stats.decision import POWER, decided, images_to_decide, normal_quantile

Floats = NDArray[np.float64]

# Halvings of [drop, 1]: the bracket ends below the spacing of doubles near 1.
_HALVINGS = 60


def _counts(lost: ArrayLike, gained: ArrayLike, count: ArrayLike) -> tuple[Floats, Floats, Floats]:
    b, c, n = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (lost, gained, count)))
    if not np.all((n >= 1) & (b >= 0) & (c >= 0) & (b + c <= n)):  # written so that NaN is refused too
        raise EvidenceError("lost and gained must be counts within at least one pair; evaluate some images first")
    return b, c, n


def null_gained(lost: ArrayLike, gained: ArrayLike, count: ArrayLike, drop: ArrayLike) -> Floats:
    """Return the maximum-likelihood P(gained) when the true drop is `drop`: the root of Tango's (25)."""
    b, c, n = _counts(lost, gained, count)
    return _null_gained(b, c, n, np.asarray(drop, dtype=np.float64))


def _null_gained(b: Floats, c: Floats, n: Floats, drop: Floats) -> Floats:
    slope = -(b + c) + (2 * n - b + c) * drop
    constant = -c * drop * (1 - drop)
    root = np.sqrt(np.maximum(slope * slope - 8 * n * constant, 0.0))
    # Of the two forms of the same root, the one that subtracts no near-equal numbers.
    above = slope > 0
    stable = -2 * constant / np.where(above, slope + root, 1.0)
    return np.asarray(np.where(above, stable, (root - slope) / (4 * n)), dtype=np.float64)


def null_variance(lost: ArrayLike, gained: ArrayLike, count: ArrayLike, drop: ArrayLike) -> Floats:
    """Return the variance of one pair's difference when the true drop is `drop` (Tango's denominator squared, / n).

    Shares with a count of 1 give the same: the formula depends on proportions only.
    """
    b, c, n = _counts(lost, gained, count)
    value = np.asarray(drop, dtype=np.float64)
    return np.maximum(2 * _null_gained(b, c, n, value) + value * (1 - value), 0.0)


def score(lost: ArrayLike, gained: ArrayLike, count: ArrayLike, drop: ArrayLike) -> Floats:
    """Return Tango's statistic, standard normal when the true drop is `drop`; it falls as `drop` grows."""
    b, c, n = _counts(lost, gained, count)
    value = np.asarray(drop, dtype=np.float64)
    distance = b - c - n * value
    spread = np.sqrt(n * null_variance(b, c, n, value))
    with np.errstate(divide="ignore", invalid="ignore"):
        # Without any spread under the hypothesis, any distance at all contradicts it.
        return np.where(distance == 0, 0.0, distance / spread)


def decide(
    lost: ArrayLike, gained: ArrayLike, count: ArrayLike, margin: ArrayLike, confidence: float = 0.95
) -> NDArray[np.str_]:
    """Return an `Outcome` for each table: PASS with the upper bound below the margin, FAIL with the lower above it.

    Decided by the statistic at the margin, which agrees with the bounds but for small counts: these need a little more
    (`decision.decided`).
    """
    b, c, n = _counts(lost, gained, count)
    value = np.asarray(margin, np.float64)
    variance = null_variance(b, c, n, value)
    # The third central moment of one pair's difference, which is 1, -1 or 0, at the margin.
    third = value - 3 * value * (variance + value * value) + 2 * value**3
    return decided(b - c - n * value, n, variance, third, confidence=confidence)


def upper_bound(lost: ArrayLike, gained: ArrayLike, count: ArrayLike, confidence: float = 0.95) -> Floats:
    """Return the one-sided upper bound of the drop: the largest drop that the pairs do not contradict.

    Solved by bisection, since the statistic is monotone; the upper end of the last bracket is returned, the safe side.
    """
    z = normal_quantile(confidence)
    b, c, n = _counts(lost, gained, count)
    low, high = (b - c) / n, np.ones(b.shape)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        inside = score(b, c, n, middle) + z > 0
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return np.asarray(high, dtype=np.float64)


def lower_bound(lost: ArrayLike, gained: ArrayLike, count: ArrayLike, confidence: float = 0.95) -> Floats:
    """Return the one-sided lower bound of the drop: minus the upper bound of the opposite drop."""
    return -upper_bound(gained, lost, count, confidence)


def interval(lost: int, gained: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the two-sided interval of the drop."""
    one_sided = (1 + confidence) / 2
    return float(lower_bound(lost, gained, count, one_sided)), float(upper_bound(lost, gained, count, one_sided))


def pairs_to_decide(
    lost: float, gained: float, margin: float, *, confidence: float = 0.95, power: float = POWER
) -> int | None:
    """Return how many pairs would tell a drop of `lost - gained` (shares of 1) from `margin`, or None when none can.

    n = ((z_confidence * s0 + z_power * s1) / (margin - drop))^2, where s1^2 = lost + gained - drop^2 is the variance
    of one pair's difference at the observed shares and s0^2 is Tango's restricted variance at the margin. The same
    n serves a drop beyond the margin, where FAIL is to be shown instead of PASS.
    """
    drop = lost - gained
    null = float(null_variance(lost, gained, 1.0, margin))
    seen_variance = lost + gained - drop * drop
    return images_to_decide(margin - drop, null, seen_variance, confidence=confidence, power=power)

"""Score interval for the difference of two paired proportions, and exact chances of the decisions taken by it.

T. Tango (1998), Equivalence test and confidence interval for the difference in proportions for the paired-sample
design, Statistics in Medicine 17:891-908, equations (24) to (26). Of `count` pairs, `lost` are right only at the
baseline and `gained` only at the candidate; the drop is P(lost) - P(gained), positive when the candidate reads worse.

Every function takes counts as numbers or as arrays that broadcast, so that a simulation of thousands of draws is one
call, and gives float64 of the broadcast shape.

The exact chances take the true shares of lost and gained images as known. Each image is lost, gained or neither, so the
table is trinomial: the number of discordant pairs is binomial, and of those the number lost is binomial again. No
normal approximation is used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from toolchain.core.errors import EvidenceError
from toolchain.stats.decision import POWER, decided, images_to_decide, normal_quantile

Floats = NDArray[np.float64]
Rule = Callable[[Floats, Floats], NDArray[np.bool_]]

# Discordant counts that are left out at each end carry less than this chance in all.
_TAIL = 1e-13
# Shares written in percent may exceed each other by rounding.
_ROUNDING = 1e-12

# Halvings of [drop, 1]: the bracket ends below the spacing of doubles near 1.
_HALVINGS = 60


def _counts(lost: ArrayLike, gained: ArrayLike, count: ArrayLike) -> tuple[Floats, Floats, Floats]:
    b, c, n = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (lost, gained, count)))
    if not np.all((n >= 1) & (b >= 0) & (c >= 0) & (b + c <= n)):  # written so that NaN is refused too
        raise EvidenceError("lost and gained must be counts within at least one pair; evaluate some images first")
    return b, c, n


def _null_gained(b: Floats, c: Floats, n: Floats, drop: Floats) -> Floats:
    """Return the maximum-likelihood P(gained) when the true drop is `drop`: the root of Tango's (25)."""
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
    lost: float, gained: float, margin: float, *, judged: int = 0, confidence: float = 0.95, power: float = POWER
) -> int | None:
    """Return how many pairs would tell a drop of `lost - gained` (shares of 1) from `margin`, or None when none can.

    n = ((z_confidence * s0 + z_power * s1) / (margin - drop))^2, where s1^2 = lost + gained - drop^2 is the variance
    of one pair's difference at the observed shares and s0^2 is Tango's restricted variance at the margin. The same
    n serves a drop beyond the margin, where FAIL is to be shown instead of PASS.
    """
    drop = lost - gained
    null = float(null_variance(lost, gained, 1.0, margin))
    return images_to_decide(
        margin - drop, null, lost + gained - drop * drop, judged=judged, confidence=confidence, power=power
    )


@dataclass(frozen=True)
class Truth:
    """`count` images, of each of which the candidate loses a share `lost` and gains a share `gained` in truth."""

    count: int
    lost: float
    gained: float

    @classmethod
    def of(cls, count: int, drop: float, discordance: float) -> Truth | None:
        """Return the truth with that drop and share of discordant images; None where the shares cannot be had."""
        if not abs(drop) <= discordance + _ROUNDING or discordance > 1:
            return None
        return cls(count, max((discordance + drop) / 2, 0.0), max((discordance - drop) / 2, 0.0))


def chance(truth: Truth, rule: Rule) -> float:
    """Return the chance that `rule(lost, gained)` holds, to about 1e-12.

    Among tables with equally many discordant pairs the rule must hold from some number of lost ones on, as rules on
    Tango's statistic, on the seen drop and on McNemar's test do.
    """
    from scipy.special import betainc

    pairs, weights = _discordant(truth)
    first = _first(pairs, rule)
    share = truth.lost / (truth.lost + truth.gained) if truth.lost + truth.gained else 0.0
    inside = np.clip(first, 1, np.maximum(pairs, 1))
    tail = np.where(first <= 0, 1.0, np.where(first > pairs, 0.0, betainc(inside, pairs - inside + 1, share)))
    return float(np.clip(np.sum(weights * tail), 0.0, 1.0))


def tail_beyond(lost: int, gained: int, count: int, margin: float) -> float:
    """Return the chance of a statistic at least as bad as this table's where the true drop is `margin`.

    The rest of that truth is the most likely one given the table. So the p-value is exact up to that estimate. The
    normal tail is not: at the small levels of Holm's correction it is several times too small.
    """
    observed = float(score(lost, gained, count, margin))
    null = float(_null_gained(*_counts(lost, gained, count), np.asarray(margin)))
    # The same table must count as equally bad, whatever the rounding.
    threshold = observed - 1e-9 * max(1.0, abs(observed))
    truth = Truth(count, min(null + margin, 1.0), null)
    return chance(truth, lambda b, c: score(b, c, count, margin) >= threshold)


def _discordant(truth: Truth) -> tuple[Floats, Floats]:
    """Return the numbers of discordant pairs that matter, and the chance of each."""
    from scipy.special import gammaln, xlog1py, xlogy

    n, share = truth.count, truth.lost + truth.gained
    # Bernstein's inequality bounds both tails of a binomial.
    depth = -np.log(_TAIL)
    reach = np.sqrt(2 * depth * n * share * (1 - share)) + depth
    low, high = max(0, int(n * share - reach)), min(n, int(n * share + reach) + 1)
    d = np.arange(low, high + 1, dtype=np.float64)
    logs = gammaln(n + 1) - gammaln(d + 1) - gammaln(n - d + 1) + xlogy(d, share) + xlog1py(n - d, -share)
    weights = np.exp(logs)
    # Rounding in the logarithms of large factorials changes every weight by the same factor.
    return d, weights / weights.sum()


def _first(pairs: Floats, rule: Rule) -> Floats:
    """Return, for each number of discordant pairs, from how many lost ones on the rule holds; one more where never."""
    low, high = np.full(pairs.shape, -1.0), pairs + 1
    while np.any(high - low > 1):
        middle = np.clip(np.floor((low + high) / 2), 0, pairs)
        holds, open_ = rule(middle, pairs - middle), high - low > 1
        low, high = np.where(open_ & ~holds, middle, low), np.where(open_ & holds, middle, high)
    return high

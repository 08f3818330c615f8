"""Exact chances of paired tables: how often a rule holds when the true shares of lost and gained images are known.

Of `count` images each is lost, gained or neither, so the table is trinomial: the number of discordant pairs is
binomial, and of those the number lost is binomial again. No normal approximation is used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolchain.stats import paired_difference

Floats = NDArray[np.float64]
Rule = Callable[[Floats, Floats], NDArray[np.bool_]]

# Discordant counts that are left out at each end carry less than this chance in all.
_TAIL = 1e-13
# Shares written in percent may exceed each other by rounding.
_ROUNDING = 1e-12


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
    seen = float(paired_difference.score(lost, gained, count, margin))
    null = float(paired_difference.null_gained(lost, gained, count, margin))
    # The same table must count as equally bad, whatever the rounding.
    threshold = seen - 1e-9 * max(1.0, abs(seen))
    truth = Truth(count, min(null + margin, 1.0), null)
    return chance(truth, lambda b, c: paired_difference.score(b, c, count, margin) >= threshold)


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

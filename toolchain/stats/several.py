"""Decisions on several paired questions at once.

All must hold. That all do is shown when each upper bound lies below its margin: an intersection-union test, which
needs no correction (R. L. Berger 1982, Technometrics 24:295-300). That one does not is shown after Holm's step-down
correction for their number (S. Holm 1979, Scand. J. Statistics 6:65-70), since among many something always looks bad.
That looks far out into the tail, where the p-values are exact ones (`exact_power.tail_beyond`).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from toolchain.stats import paired_difference
from toolchain.stats.decision import Outcome
from toolchain.stats.exact_power import tail_beyond

_tail = lru_cache(maxsize=65_536)(tail_beyond)


def decide(
    worse: ArrayLike, better: ArrayLike, images: ArrayLike, margin: ArrayLike, confidence: float = 0.95
) -> NDArray[np.str_]:
    """Return an `Outcome` for each question; the last axis holds those that are judged together.

    PASS is that of `paired_difference.decide`. FAIL must be too, and must stand after Holm's correction over the last
    axis.
    """
    b, c, n, limit = np.broadcast_arrays(*(np.asarray(x) for x in (worse, better, images, margin)))
    alone = paired_difference.decide(b, c, n, limit, confidence)
    p_values = np.ones(b.shape)
    for at in zip(*np.nonzero(alone == Outcome.FAIL), strict=True):
        p_values[at] = _tail(int(b[at]), int(c[at]), int(n[at]), float(limit[at]))
    unshown = (alone == Outcome.FAIL) & ~holm(p_values, 1 - confidence)
    return np.where(unshown, Outcome.INCONCLUSIVE, alone)


def holm(p_values: ArrayLike, alpha: float) -> NDArray[np.bool_]:
    """Return which hypotheses Holm's step-down procedure rejects at family-wise error `alpha`, over the last axis."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, axis=-1, kind="stable")
    steps = alpha / np.arange(p.shape[-1], 0, -1)
    stands = np.logical_and.accumulate(np.take_along_axis(p, order, -1) <= steps, axis=-1)
    rejected = np.empty(p.shape, np.bool_)
    np.put_along_axis(rejected, order, stands, axis=-1)
    return rejected

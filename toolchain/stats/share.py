"""Exact bounds of a share (Clopper and Pearson 1934, Biometrika 26:404-413)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def share_bounds(flips: ArrayLike, count: ArrayLike, confidence: float) -> tuple[Floats, Floats]:
    """Return the exact one-sided lower and upper bound of a share, each at `confidence`."""
    from scipy.special import betaincinv

    k, n = np.broadcast_arrays(*(np.asarray(x, np.float64) for x in (flips, count)))
    lower = np.where(k > 0, betaincinv(np.maximum(k, 1), n - k + 1, 1 - confidence), 0.0)
    upper = np.where(k < n, betaincinv(k + 1, np.maximum(n - k, 1), confidence), 1.0)
    return lower, upper

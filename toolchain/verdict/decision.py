"""Decision: what a score statistic says of a margin. Every question about shares, drops and costs is decided here.

The statistic is (seen - margin) / (its standard error if the margin were the truth), so it is standard normal at the
margin. To ask whether it lies beyond z is to ask whether the score bound of that confidence lies beyond the margin.
"""

from __future__ import annotations

from math import ceil, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from toolchain.errors import EvidenceError
from toolchain.verdict.outcome import Outcome

POWER = 0.8
"""The chance of a decision that sample sizes are given for."""

# Shares of counts that equal the margin may differ from it by rounding.
_NO_ROOM = 1e-12


def normal_quantile(probability: float) -> float:
    """Return the standard normal quantile; raises EvidenceError outside (0, 1)."""
    if not 0.0 < probability < 1.0:
        raise EvidenceError(f"a confidence of {probability} is not between 0 and 1; give one such as 0.95")
    return NormalDist().inv_cdf(probability)


def decided(statistic: ArrayLike, confidence: float = 0.95) -> NDArray[np.str_]:
    """Return an `Outcome` for each score: PASS below the margin, FAIL beyond it, INCONCLUSIVE where neither is shown.

    A statistic that is NaN decides nothing.
    """
    values, z = np.asarray(statistic, np.float64), normal_quantile(confidence)
    return np.select([values < -z, values > z], [Outcome.PASS, Outcome.FAIL], Outcome.INCONCLUSIVE)


def advice(needed: int | None, equal: str) -> str:
    """Return what would decide an INCONCLUSIVE: so many images, or none. equal: words for what was seen then."""
    if needed is None:
        return f"no number of images decides {equal}: set another one"
    return f"about {needed:,} images like these would decide ({POWER * 100:.0f} % power)"


def images_to_decide(
    room: float, null_variance: float, own_variance: float, *, confidence: float = 0.95, power: float = POWER
) -> int | None:
    """Return how many images would decide with chance `power`, None when no number does: without any room.

    room: the margin less what was seen, negative where FAIL is to be shown. null_variance, own_variance: of one
    image's value, at the margin and as seen. n = ((z_confidence * s0 + z_power * s1) / room)^2.
    """
    if abs(room) < _NO_ROOM:
        return None
    spreads = sqrt(null_variance), sqrt(max(own_variance, 0.0))
    root = (normal_quantile(confidence) * spreads[0] + normal_quantile(power) * spreads[1]) / room
    return ceil(root * root)

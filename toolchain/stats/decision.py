"""Decision: whether a score statistic shows PASS, FAIL or neither. Every drop and cost is decided here.

The statistic is (seen - margin) / (its standard error if the margin were the truth), so it is about standard normal at
the margin. It lies beyond z exactly where the score bound of that confidence lies beyond the margin.
"""

from __future__ import annotations

from enum import StrEnum
from math import ceil, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from toolchain.core.errors import EvidenceError

Floats = NDArray[np.float64]
POWER = 0.8
"""The chance of a decision that sample sizes are given for."""

PASS_GAP, FAIL_GAP = 0.15, 0.5
"""By how many steps a sum must lie further from the margin than the normal statistic asks (`decided`)."""
IN_STEPS = "; with counts this small the decision is stricter than the bounds"
"""Closes the reason of an INCONCLUSIVE verdict whose bound alone would have decided."""

# Shares of counts that equal the margin may differ from it by rounding.
_NO_ROOM = 1e-12


class Outcome(StrEnum):
    """What a verdict says."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


def normal_quantile(probability: float) -> float:
    """Return the standard normal quantile; raises EvidenceError outside (0, 1)."""
    if not 0.0 < probability < 1.0:
        raise EvidenceError(f"a confidence of {probability} is not between 0 and 1; give one such as 0.95")
    return NormalDist().inv_cdf(probability)


def decided(
    distance: Floats, count: Floats, variance: Floats, third: Floats, *, step: ArrayLike = 1.0, confidence: float = 0.95
) -> NDArray[np.str_]:
    """Return an `Outcome` for each sum of `count` images' values: PASS below the margin, FAIL beyond it.

    distance: of the sum from what it is at the margin. variance, third: second and third central moment of one image's
    value there. step: by what an image that counts moves the sum. Where few images count, the statistic is not
    normal: sums move in steps, and losses are skewed. So the distance is taken shorter by a part of a step (`PASS_GAP`,
    `FAIL_GAP`), and FAIL asks for the quantile of a skewed statistic (Cornish and Fisher 1938). By exact chances of
    drops (`bench/gate_rates.py`) and simulated ones of costs both errors then stay below 5.5 % where 5 % is asked
    for; the plain statistic failed 9.3 % at 1,014 images. A statistic that is NaN decides nothing.
    """
    z, spread = normal_quantile(confidence), np.sqrt(count * variance)
    with np.errstate(divide="ignore", invalid="ignore"):
        skew = np.maximum(np.where(variance > 0, third / (variance**1.5 * np.sqrt(count)), 0.0), 0.0)
        passed = (distance + PASS_GAP * np.asarray(step)) / spread < -z
        failed = (distance - FAIL_GAP * np.asarray(step)) / spread > z + (z * z - 1) / 6 * skew
    return np.select([passed, failed], [Outcome.PASS, Outcome.FAIL], Outcome.INCONCLUSIVE)


def advice(needed: int | None, equal: str) -> str:
    """Return the advice on an INCONCLUSIVE verdict: how many images would decide, or that none can.

    equal: names a figure that lies at its limit.
    """
    if needed is None:
        return f"no number of images can decide {equal}; set another limit"
    return f"about {needed:,} images like these would decide ({POWER * 100:.0f} % power)"


def images_to_decide(
    room: float,
    null_variance: float,
    observed_variance: float,
    *,
    judged: int = 0,
    gap: float = 0.0,
    confidence: float = 0.95,
    power: float = POWER,
) -> int | None:
    """Return how many images would decide with chance `power`; None where what was seen equals the margin.

    room: the margin less what was seen, negative where FAIL is to be shown. null_variance, observed_variance: of
    one image's value, at the margin and as seen. judged: how many images
    did not decide; the answer is larger. gap: by how much less the sum counts than it is (`decided`). Solves
    n * room - gap = (z_confidence * s0 + z_power * s1) * sqrt(n).
    """
    if abs(room) < _NO_ROOM:
        return None
    spreads = sqrt(null_variance), sqrt(max(observed_variance, 0.0))
    reach = normal_quantile(confidence) * spreads[0] + normal_quantile(power) * spreads[1]
    root = (reach + sqrt(reach * reach + 4 * abs(room) * gap)) / (2 * room)
    return max(ceil(root * root), judged + 1)

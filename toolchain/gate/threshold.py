"""What is measured against its limit, and the sentence that a verdict says of it.

Bytes, counts and ratios of bytes are measured exactly: no confidence, no INCONCLUSIVE. All else lies between two
one-sided confidence bounds.
"""

from __future__ import annotations

import math

from toolchain.core.errors import EvidenceError
from toolchain.stats.decision import Outcome


def within(name: str, measured: float, limit: float) -> Outcome:
    """Return PASS up to the limit; raises EvidenceError on NaN, so that it can be neither."""
    if not math.isfinite(measured):
        raise EvidenceError(f"{name}: measured {measured}, which is no number; measure it again")
    return Outcome.PASS if measured <= limit else Outcome.FAIL


def positive(name: str, measured: float) -> float:
    """Return what is measured; raises EvidenceError unless it is above 0."""
    if not measured > 0:
        raise EvidenceError(f"{name}: measured {measured}, which cannot be; measure it again")
    return measured


def side(outcome: Outcome) -> str:
    """Return the words that stand between what is measured and its limit."""
    return "within the limit of" if outcome is Outcome.PASS else "beyond the limit of"


_SPANS = {
    Outcome.PASS: ("at most {high}", "within"),
    Outcome.FAIL: ("at least {low}", "beyond"),
    Outcome.INCONCLUSIVE: ("between {low} and {high}", "too close to decide against"),
}


def by_bounds(
    outcome: Outcome,
    low: str,
    high: str,
    limit: str,
    confidence: float,
    *,
    unit: str = "",
    note: str = "",
    side: str = "",
) -> str:
    """Return what the bounds say: `at most 0.21 pp with 95 % confidence, within the margin of 0.3 pp`.

    low, high: the bounds as people read them. limit: the limit in words. unit: follows the bounds. note: follows the
    confidence. side: replaces what is said of where the bounds lie.
    """
    span, usual = _SPANS[outcome]
    sure = f"with {confidence * 100:.4g} % confidence{note}"
    return f"{span.format(low=low, high=high)}{unit} {sure}, {side or usual} the {limit}"

"""Limits on what is measured exactly: bytes, counts, ratios of bytes. No confidence, no INCONCLUSIVE."""

from __future__ import annotations

import math

from toolchain.errors import EvidenceError
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

"""Accuracy: a non-inferiority test on the one-sided Tango bounds of the paired drop, at the limit's confidence.

PASS when the upper bound lies below the margin, FAIL when the lower bound lies above it, otherwise INCONCLUSIVE with
the number of images that would decide at the shares seen (`paired_difference.pairs_to_decide`, power 80 %). So a
candidate that was seen to drop by more than the margin never passes, nor does one judged on too few images.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from toolchain.core.quantities import beside, counted, percent_text, points_text
from toolchain.evaluation.compare import Comparison, Pairs, comparison
from toolchain.gate.limit import LimitDefinition, MarginLimit, Verdict, by_bounds
from toolchain.gate.limits.preprocess import likely_cause
from toolchain.stats import paired_difference
from toolchain.stats.decision import IN_STEPS, Outcome, advice

Counts = NDArray[np.int64]


class DropLimit(MarginLimit):
    """Fall in accuracy against the baseline: the margin of the non-inferiority test."""


def judge_drop(limit: DropLimit, comparison: Comparison, cause: str = "") -> Verdict:
    """Judge the fall in accuracy against the margin. cause: closes the reason where more than the margin was lost."""
    b, c, n = comparison.lost, comparison.gained, comparison.images
    outcome = Outcome(paired_difference.decide(b, c, n, limit.max, limit.confidence).item())
    lower = float(paired_difference.lower_bound(b, c, n, limit.confidence))
    upper = float(paired_difference.upper_bound(b, c, n, limit.confidence))
    drop, low, high = (beside(value, limit.max, points_text, 3) for value in (comparison.drop, lower, upper))
    bounds_text = by_bounds(outcome, low, high, f"margin of {limit.max * 100:.4g} pp", limit.confidence, unit=" pp")
    reason = f"{drop} pp on {n:,} images ({b:,} lost, {c:,} gained), {bounds_text}"
    needed = None
    if outcome is Outcome.INCONCLUSIVE:
        needed = paired_difference.pairs_to_decide(b / n, c / n, limit.max, judged=n, confidence=limit.confidence)
        reason += f"; {advice(needed, 'a drop that equals the margin')}"
        reason += IN_STEPS if upper < limit.max or lower > limit.max else ""
    if outcome is Outcome.FAIL or (outcome is Outcome.INCONCLUSIVE and comparison.drop > limit.max):
        reason += _suffered(comparison) + cause
    bound = lower if outcome is Outcome.FAIL else upper
    return Verdict("drop", outcome, limit.action, limit.max, comparison.drop, bound, reason, needed)


def _suffered(comparison: Comparison) -> str:
    """Return the classes that lost the most and what they are now read as, for the end of a reason."""
    classes = ", ".join(
        f"'{row.label}' ({percent_text(row.drop)} of {counted(row.images, 'image')})" for row in comparison.worst()
    )
    confusions = ", ".join(map(str, comparison.confusions[:3]))
    return f"; suffered most: {classes}" + (f"; {confusions}" if confusions else "")


def _judge(limit: DropLimit, pairs: Pairs) -> Verdict:
    compared = comparison(pairs)
    return judge_drop(limit, compared, likely_cause(pairs.files, compared))


def _simulate(limit: DropLimit, lost: Counts, gained: Counts, each: Counts) -> NDArray[np.str_]:
    return paired_difference.decide(lost.sum(1), gained.sum(1), int(each.sum()), limit.max, limit.confidence)


DROP = LimitDefinition(
    name="drop",
    settings=DropLimit,
    about="Fall in accuracy against the baseline.",
    example={"max": "0.3pp"},
    judge=_judge,
    simulate=_simulate,
)

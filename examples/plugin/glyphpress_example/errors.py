"""The limit `[errors]`: the share of images that the candidate reads wrongly, whatever the baseline makes of them."""

from __future__ import annotations

import numpy as np
from scipy.special import betaincinv

from glyphpress.plugins import LimitDefinition, MarginLimit, Outcome, Pairs, Verdict


class ErrorsLimit(MarginLimit):
    """The largest share of wrong answers, of which `max` and `confidence` are set as in other limits."""


def judge(limit: ErrorsLimit, pairs: Pairs) -> Verdict:
    """Judge by the exact bounds of a share (Clopper and Pearson 1934), one-sided at the limit's confidence."""
    count, wrong = len(pairs), int(np.not_equal(pairs.after, pairs.labels).sum())
    low = float(betaincinv(wrong, count - wrong + 1, 1 - limit.confidence)) if wrong else 0.0
    high = float(betaincinv(wrong + 1, count - wrong, limit.confidence)) if wrong < count else 1.0
    outcome = Outcome.PASS if high <= limit.max else Outcome.FAIL if low > limit.max else Outcome.INCONCLUSIVE
    bound = low if outcome is Outcome.FAIL else high
    reason = (
        f"{wrong:,} of {count:,} images are read wrongly, {low:.2%} to {high:.2%} with {limit.confidence:.4g} "
        f"confidence on each side, and {limit.max:.2%} are allowed"
    )
    return Verdict("errors", outcome, limit.action, limit.max, wrong / count, bound, reason)


ERRORS = LimitDefinition(
    name="errors",
    settings=ErrorsLimit,
    about="Share of images that the candidate reads wrongly, whatever the baseline reads.",
    example={"max": "5pp"},
    judge=judge,
)

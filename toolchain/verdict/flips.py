"""Flips: how often the answer changes at all, even where accuracy does not.

Decided by the score statistic of a share, whose bounds are Wilson's (E. B. Wilson 1927, JASA 22:209-212).
"""

from __future__ import annotations

from collections import Counter

from toolchain.quantities import beside, percent_text
from toolchain.verdict.decision import advice, decided, images_to_decide
from toolchain.verdict.metrics import wilson
from toolchain.verdict.outcome import Outcome, Verdict
from toolchain.verdict.pairs import Pairs
from toolchain.verdict.tables import FlipsLimit


def judge_flips(limit: FlipsLimit, pairs: Pairs) -> Verdict:
    """Judge the share of images that are answered otherwise, by one-sided score bounds of a share."""
    n, flips = len(pairs), int(pairs.flipped.sum())
    share, room = flips / n, limit.max * (1 - limit.max)
    outcome = Outcome(decided((share - limit.max) / (room / n) ** 0.5, limit.confidence).item())
    # The two ends of an interval are one-sided bounds, each of them more confident.
    lower, upper = wilson(flips, n, 2 * limit.confidence - 1)
    low, high, told = (beside(value, limit.max, percent_text) for value in (lower, upper, share))
    needed = None
    seen = f"{told} of {n:,} images ({flips:,}) are answered otherwise"
    limited, sure = f"limit of {limit.max * 100:.4g} %", f"with {limit.confidence * 100:.4g} % confidence"
    if outcome is Outcome.PASS:
        reason = f"{seen}, at most {high} {sure}, within the {limited}"
    elif outcome is Outcome.FAIL:
        reason = f"{seen}, at least {low} {sure}, beyond the {limited}{_most_frequent(pairs)}"
    else:
        needed = images_to_decide(limit.max - share, room, share * (1 - share), confidence=limit.confidence)
        needed = None if needed is None else max(needed, n + 1)
        between = f"between {low} and {high} {sure}"
        more = advice(needed, "a share that equals the limit")
        reason = f"{seen}, {between}, cannot be told from the {limited}; {more}{_most_frequent(pairs)}"
    bound = lower if outcome is Outcome.FAIL else upper
    return Verdict("flips", outcome, limit.action, limit.max, share, bound, reason, needed)


def _most_frequent(pairs: Pairs) -> str:
    """Return the changes of answer that were seen most often, for the end of a reason."""
    changes = zip(pairs.before[pairs.flipped].tolist(), pairs.after[pairs.flipped].tolist(), strict=True)
    named = ", ".join(f"{pairs.classes[a]} to {pairs.classes[b]}: {k}" for (a, b), k in Counter(changes).most_common(3))
    return f"; most often {named}" if named else ""

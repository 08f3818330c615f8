"""Flips: how often the answer changes at all, even where accuracy does not.

Decided by the exact bounds of a share (C. J. Clopper and E. S. Pearson 1934, Biometrika 26:404-413), which err at most
as often as they say on any number of images. Wilson's, which are shorter, failed 10 % instead of 5 at a limit of 1.3 %
and some hundred images.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import ArrayLike, NDArray

from toolchain.core.quantities import beside, percent_text
from toolchain.evaluation.compare import Pairs
from toolchain.gate.limit import LimitDefinition, MarginLimit, Verdict, by_bounds
from toolchain.stats.decision import Outcome, advice, images_to_decide

Floats = NDArray[np.float64]


class FlipsLimit(MarginLimit):
    """Share of the images whose answer changed at all."""


def share_bounds(flips: ArrayLike, count: ArrayLike, confidence: float) -> tuple[Floats, Floats]:
    """Return the exact one-sided lower and upper bound of a share, each at `confidence`."""
    from scipy.special import betaincinv

    k, n = np.broadcast_arrays(*(np.asarray(x, np.float64) for x in (flips, count)))
    lower = np.where(k > 0, betaincinv(np.maximum(k, 1), n - k + 1, 1 - confidence), 0.0)
    upper = np.where(k < n, betaincinv(k + 1, np.maximum(n - k, 1), confidence), 1.0)
    return lower, upper


def decide(flips: ArrayLike, count: ArrayLike, limit: float, confidence: float) -> NDArray[np.str_]:
    """Return an `Outcome` for each number: PASS with the upper bound below the limit, FAIL with the lower above."""
    lower, upper = share_bounds(flips, count, confidence)
    return np.select([upper < limit, lower > limit], [Outcome.PASS, Outcome.FAIL], Outcome.INCONCLUSIVE)


def judge_flips(limit: FlipsLimit, pairs: Pairs) -> Verdict:
    """Judge the share of images whose answer changed, by its exact one-sided bounds."""
    n, flips = len(pairs), int(pairs.flipped.sum())
    share = flips / n
    outcome = Outcome(decide(flips, n, limit.max, limit.confidence).item())
    lower, upper = (float(bound) for bound in share_bounds(flips, n, limit.confidence))
    low, high, measured = (beside(value, limit.max, percent_text) for value in (lower, upper, share))
    bounds_text = by_bounds(outcome, low, high, f"limit of {limit.max * 100:.4g} %", limit.confidence)
    reason = f"{measured} of {n:,} answers ({flips:,}) changed, {bounds_text}"
    needed = None
    if outcome is Outcome.INCONCLUSIVE:
        needed = _images_needed(limit, share, n)
        reason += f"; {advice(needed, 'a share that equals the limit')}"
    if outcome is not Outcome.PASS:
        reason += _most_frequent(pairs)
    bound = lower if outcome is Outcome.FAIL else upper
    return Verdict("flips", outcome, limit.action, limit.max, share, bound, reason, needed)


def _images_needed(limit: FlipsLimit, share: float, images: int) -> int | None:
    variances = limit.max * (1 - limit.max), share * (1 - share)
    # Exact bounds are about the normal ones of half a flip more or less (J. L. Fleiss et al. 1980, Biometrics 36:343).
    return images_to_decide(limit.max - share, *variances, judged=images, gap=0.5, confidence=limit.confidence)


def _most_frequent(pairs: Pairs) -> str:
    """Return the changes of answer that were seen most often, for the end of a reason."""
    changes = zip(pairs.before[pairs.flipped].tolist(), pairs.after[pairs.flipped].tolist(), strict=True)
    named = ", ".join(f"{pairs.classes[a]} to {pairs.classes[b]}: {k}" for (a, b), k in Counter(changes).most_common(3))
    return f"; most often {named}" if named else ""


def _simulate(
    limit: FlipsLimit, lost: NDArray[np.int64], gained: NDArray[np.int64], each: NDArray[np.int64]
) -> NDArray[np.str_]:
    return decide((lost + gained).sum(1), int(each.sum()), limit.max, limit.confidence)


FLIPS = LimitDefinition(
    name="flips",
    settings=FlipsLimit,
    about="Share of the images whose answer changes at all.",
    example={"max": "1pp"},
    judge=judge_flips,
    simulate=_simulate,
)

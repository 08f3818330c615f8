"""Confidence: the limits that matter to a scanner which rejects the images that it is unsure of.

The reject rate at a fixed error is where the risk-coverage curve (El-Yaniv and Wiener 2010, JMLR 11:1605-1641) meets
that error. The expected calibration error is that of Guo et al. 2017 (arXiv:1706.04599), in equal-width bins.

Both are judged by what changes from the baseline on the same images: the reject rate by its rise, the calibration error
by its change either way. A bootstrap errs too often here (`bench/confidence_rates.py`): the reject rate hangs on a few
misread images, and the calibration error of few images is too large, the more so the smaller it truly is.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from toolchain.core.errors import EvidenceError
from toolchain.core.quantities import beside, percent_text, points_text
from toolchain.core.settings import Points
from toolchain.evaluation.compare import Confidences, Pairs
from toolchain.gate.limit import LimitDefinition, MarginLimit, Verdict, by_bounds
from toolchain.stats import bounded_mean
from toolchain.stats.decision import POWER, Outcome, normal_quantile


class RejectsLimit(MarginLimit):
    """Rise in the share of images that must be rejected so that at most `error` of the accepted ones are wrong."""

    error: Points = Field(
        default=0.01, description="share of the accepted images that may be wrong", json_schema_extra={"default": "1pp"}
    )


class EceLimit(MarginLimit):
    """Change of the expected calibration error, either way: how far confidence and accuracy lie apart."""


BINS = 15
"""Bins of the expected calibration error, as in Guo et al."""

_SURE = 2.0
"""Standard errors from 0 at which it is taken as known whether the confidences of a bin are too high or too low."""
_GRID = 0.005
"""Spacing of the values that an image's part in a calibration error is rounded to: 800 values from -2 to 2."""

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Answered:
    """What one file answered: confidence float [N], and whether it was right, bool [N].

    Raises EvidenceError without images, or with confidences that are no probabilities.
    """

    confidence: Confidences
    right: Flags

    def __post_init__(self) -> None:
        """Reject what cannot be judged."""
        sure, right = self.confidence, self.right
        # Written so that NaN is refused too.
        if not len(right) or sure.shape != right.shape or not ((sure >= 0) & (sure <= 1)).all():
            raise EvidenceError("confidences must be probabilities, one an image, of at least one; evaluate again")


@dataclass(frozen=True)
class Rejection:
    """The smallest share of images to reject, the least confidence accepted; None where no threshold will do."""

    rate: float
    threshold: float | None


@dataclass(frozen=True)
class Rise:
    """The rise of a statistic from the baseline to the candidate, as observed, and its one-sided bounds."""

    observed: float
    lower: float
    upper: float

    @property
    def mirrored(self) -> Rise:
        """From the candidate to the baseline."""
        return Rise(-self.observed, -self.upper, -self.lower)


_NONE = Rise(0.0, 0.0, 0.0)
"""The rise of a file that answers exactly as the baseline does."""


def rejection(confidence: Confidences, right: Flags, error: float) -> Rejection:
    """Return the smallest share of images to reject so that at most `error` of the accepted ones are wrong.

    confidence: float [N]. right: bool [N]. The least confident images are rejected first, equally confident ones
    together. A rate of 1.0 when no threshold does it. Raises EvidenceError without images or with NaN.
    """
    accepted, wrong = _accepting(Answered(confidence, right))
    # 0.29 of 100 images are 28.999999999999996 in floating point.
    most = int(accepted[wrong <= error * accepted * (1 + 1e-12)].max())
    if not most:
        return Rejection(1.0, None)
    return Rejection(1 - most / len(right), float(np.sort(confidence)[len(right) - most]))


def _accepting(answered: Answered) -> tuple[Counts, Counts]:
    """Return how many images each threshold accepts, none first, and how many of these are wrong."""
    order, accepted = _falling(answered.confidence)
    return accepted, np.append(0, np.cumsum(~answered.right[order]))[accepted]


def _falling(confidence: Confidences) -> tuple[Counts, Counts]:
    """Return the images from the surest on, and how many each threshold accepts: equally sure ones together."""
    order = np.argsort(-confidence, kind="stable")
    falling = confidence[order]
    return order, np.append(0, np.flatnonzero(np.append(falling[1:] != falling[:-1], True)) + 1)


def ece(confidence: Confidences, right: Flags, bins: int = BINS) -> float:
    """Return the expected calibration error: how far confidence and accuracy lie apart, by bins of confidence.

    confidence: float [N], 0 to 1. right: bool [N]. Raises EvidenceError without images or with NaN.
    """
    return float(np.abs(_gaps(Answered(confidence, right), bins).sum(axis=0)).sum() / len(right))


def _gaps(answered: Answered, bins: int = BINS) -> Floats:
    """Return by how much an image's confidence lies above whether it was right, in its bin, float64 [N, bins]."""
    sure = answered.confidence.astype(np.float64)
    # Bins are open below and closed above, as Guo et al. have them.
    bin_index = np.clip(np.ceil(sure * bins).astype(np.int64) - 1, 0, bins - 1)
    return np.where(bin_index[:, None] == np.arange(bins), (sure - answered.right)[:, None], 0.0)


def reject_rise(before: Answered, after: Answered, error: float, confidence: float) -> Rise:
    """Return the rise of the reject rate with one-sided bounds at `confidence` each, by inverted exact tests.

    If the true rise is r, a candidate that rejects r more than the baseline has the same error among what it accepts.
    So of the accepted images that only one of the two reads wrongly, as many are the candidate's as the baseline's,
    less `error` times the number that it accepts less. An exact sign test tells which r the images contradict.
    """
    from scipy.special import bdtr, bdtrc

    count = len(before.right)
    old, new = (rejection(answers.confidence, answers.right, error) for answers in (before, after))
    accepted_before = np.zeros(count, np.bool_) if old.threshold is None else before.confidence >= old.threshold
    order, accepted = _falling(after.confidence)
    wrong_before, wrong_after = (accepted_before & ~before.right)[order], ~after.right[order]
    lost = np.append(0, np.cumsum(wrong_after & ~wrong_before))[accepted]
    gained = wrong_before.sum() - np.append(0, np.cumsum(wrong_after & wrong_before))[accepted]
    decrease, discordant = accepted_before.sum() - accepted, lost + gained
    share = np.clip(0.5 - error * decrease / (2 * np.maximum(discordant, 1)), 0, 1)
    better = bdtr(lost, discordant, share) <= 1 - confidence
    worse = (lost > 0) & (bdtrc(lost - 1, discordant, share) <= 1 - confidence)
    lower = decrease[worse].max() / count if worse.any() else accepted_before.mean() - 1
    upper = decrease[better].min() / count if better.any() else 1.0
    observed = new.rate - old.rate
    return Rise(observed, min(float(lower), observed), max(float(upper), observed))


def ece_rise(before: Answered, after: Answered, confidence: float) -> Rise:
    """Return the rise of the calibration error with one-sided bounds at `confidence` each.

    Where it is known of each bin whether its confidences are too high or too low, the calibration error is a mean over
    images, and the rise has a score interval (`bounded_mean`). Where it is not, the bound assumes the worst sign.
    """
    count, gaps = len(before.right), [_gaps(answers) for answers in (before, after)]
    old, new = (float(np.abs(gap.sum(axis=0)).sum() / count) for gap in gaps)
    upper = bounded_mean.upper_bound(_sample(_largest(*gaps)), confidence)
    lower = -bounded_mean.upper_bound(_sample(_largest(*gaps[::-1])), confidence)
    return Rise(new - old, min(float(lower), new - old), max(float(upper), new - old))


def turns(before: Answered, after: Answered) -> bool:
    """Return whether one file is known to be too sure of its answers on the whole, and the other not sure enough.

    Their calibration errors may then be equal, though every confidence changed.
    """
    gaps = [answers.confidence.astype(np.float64) - answers.right for answers in (before, after)]
    old, new = (gap.sum() / max(float(np.sqrt((gap**2).sum())), 1e-300) for gap in gaps)
    return bool(min(abs(old), abs(new)) > _SURE and old * new < 0)


def sureness_rise(before: Answered, after: Answered, confidence: float) -> Rise:
    """Return the rise of confidence above accuracy, both as means, with one-sided bounds at `confidence` each."""
    old, new = (answers.confidence.astype(np.float64) - answers.right for answers in (before, after))
    observed = float((new - old).mean())
    upper = bounded_mean.upper_bound(_sample(new - old), confidence)
    lower = -bounded_mean.upper_bound(_sample(old - new), confidence)
    return Rise(observed, min(float(lower), observed), max(float(upper), observed))


def _largest(before: Floats, after: Floats) -> Floats:
    """Return each image's part in the largest rise of the calibration error that the bins allow, float64 [N]."""
    old, new = before.sum(axis=0), after.sum(axis=0)
    old_sure, new_sure = (np.abs(gap.sum(axis=0)) > _SURE * np.sqrt((gap**2).sum(axis=0)) for gap in (before, after))
    open_sign = np.where(new >= old, 1.0, -1.0)
    new_sign = np.where(old_sure | new_sure, np.sign(new), open_sign)
    old_sign = np.where(old_sure, np.sign(old), np.where(new_sure, np.sign(new), open_sign))
    return np.asarray(after @ new_sign - before @ old_sign, np.float64)


def _sample(values: Floats) -> bounded_mean.Sample:
    """Return the values on a grid, each shared by its two neighbours so that the mean stays."""
    position = (np.clip(values, -2, 2) + 2) / _GRID
    below = np.minimum(position.astype(np.int64), round(4 / _GRID) - 1)
    size, fraction = round(4 / _GRID) + 1, position - below
    counts = np.zeros(size)
    np.add.at(counts, below, 1 - fraction)
    np.add.at(counts, below + 1, fraction)
    used = counts > 0
    return bounded_mean.Sample((np.arange(size) * _GRID - 2)[used].clip(-2, 2), counts[used], -2.0, 2.0)


def judge_rejects(limit: RejectsLimit, pairs: Pairs) -> Verdict:
    """Judge the rise in the share of images that must be rejected to keep the error of the others at `limit.error`.

    A candidate that no threshold brings to that error never passes, unless it is as sure of the same images.
    """
    answers_of_both = _answered_by_both(pairs)
    before, after = (rejection(answers.confidence, answers.right, limit.error) for answers in answers_of_both)
    alike = before.rate == after.rate and _ranked_alike(*answers_of_both)
    rise = _NONE if alike else reject_rise(*answers_of_both, limit.error, limit.confidence)
    rates = (
        f"at most {percent_text(limit.error)} of the accepted wrong: {_rejects(before)} rejected by the baseline, "
        f"{_rejects(after)} by the candidate; {_at_baseline_threshold(before, pairs)}"
    )
    return _verdict("rejects", limit, rise, rates, len(pairs), may_pass=alike or after.threshold is not None)


def judge_ece(limit: EceLimit, pairs: Pairs) -> Verdict:
    """Judge the change of the expected calibration error, either way.

    A file that is suddenly better calibrated has changed too: thresholds that were set with the baseline no longer
    hold. Where the confidences turn from too low to too high, or back, both errors count, since their difference
    says nothing.
    """
    answers_of_both = _answered_by_both(pairs)
    turned = turns(*answers_of_both)
    measured = sureness_rise if turned else ece_rise
    rise = _NONE if _alike(pairs) else measured(*answers_of_both, limit.confidence)
    # The nearer side cannot be the one beyond its margin.
    change = rise if rise.observed >= 0 else rise.mirrored
    what = "change" if rise.observed >= 0 else "change (a fall)"
    if turned:
        what = f"turn from too {'low to too high' if rise.observed >= 0 else 'high to too low'} a confidence"
    shares = (percent_text(ece(answers.confidence, answers.right)) for answers in answers_of_both)
    means = (percent_text(float(answers.confidence.mean(dtype=np.float64))) for answers in answers_of_both)
    errors = "calibration error {} of the baseline, {} of the candidate".format(*shares)
    errors += " (mean confidence {} and {})".format(*means)
    return _verdict("ece", limit, change, errors, len(pairs), what=what)


def _answered_by_both(pairs: Pairs) -> tuple[Answered, Answered]:
    """Return what the baseline and the candidate answered."""
    return (
        Answered(pairs.before_confidence, np.equal(pairs.before, pairs.labels)),
        Answered(pairs.after_confidence, np.equal(pairs.after, pairs.labels)),
    )


def _ranked_alike(before: Answered, after: Answered) -> bool:
    """Return whether the candidate reads the same images rightly and would accept them in the baseline's order."""
    falling = after.confidence[np.lexsort((-after.confidence, -before.confidence))]
    return np.array_equal(before.right, after.right) and bool((np.diff(falling) <= 0).all())


def _alike(pairs: Pairs) -> bool:
    return not pairs.flipped.any() and np.array_equal(pairs.before_confidence, pairs.after_confidence)


def _rejects(rejected: Rejection) -> str:
    if rejected.threshold is None:
        return "all"
    return f"{percent_text(rejected.rate)} (below a confidence of {rejected.threshold:.4f})"


def _at_baseline_threshold(before: Rejection, pairs: Pairs) -> str:
    """Return the reject rate and the error of the candidate at the baseline's threshold, as text."""
    if before.threshold is None:
        return "no threshold of the baseline to keep"
    accepted = pairs.after_confidence >= np.float32(before.threshold)
    wrong = np.not_equal(pairs.after, pairs.labels)[accepted]
    error = percent_text(float(wrong.mean())) if wrong.size else "none"
    return (
        f"with the baseline's threshold kept the candidate rejects {percent_text(1 - float(accepted.mean()))}, "
        f"{error} of the accepted wrong"
    )


def _verdict(
    name: str,
    limit: RejectsLimit | EceLimit,
    rise: Rise,
    details: str,
    images: int,
    *,
    what: str = "rise",
    may_pass: bool = True,
) -> Verdict:
    low, high, point = (beside(value, limit.max, points_text) for value in (rise.lower, rise.upper, rise.observed))
    margin = f"margin of {points_text(limit.max, 3).rstrip('0').rstrip('.')} pp"
    outcome, bound, needed, open_end = Outcome.INCONCLUSIVE, rise.upper, None, ""
    if may_pass and rise.upper < limit.max:
        outcome = Outcome.PASS
    elif rise.lower > limit.max:
        outcome, bound = Outcome.FAIL, rise.lower
    else:
        needed = _images_needed(limit, rise, images)
        open_end = f"; about {needed:,} images like these would decide" if needed else ""
        open_end += "" if may_pass else "; no threshold brings the candidate to that error: allow a larger one"
    bounds_text = by_bounds(outcome, low, high, margin, limit.confidence, unit=" pp")
    reason = f"{what} of {point} pp, {bounds_text}{open_end}; {details}"
    return Verdict(name, outcome, limit.action, limit.max, rise.observed, bound, reason, needed)


def _images_needed(limit: RejectsLimit | EceLimit, rise: Rise, images: int) -> int | None:
    """Return how many images would decide at the rise seen, by how far its bound lies; None where none can tell."""
    distance = abs(limit.max - rise.observed)
    reach = rise.upper - rise.observed if rise.observed < limit.max else rise.observed - rise.lower
    if not distance or not reach:
        return None
    z = normal_quantile(limit.confidence)
    return max(ceil(images * ((1 + normal_quantile(POWER) / z) * reach / distance) ** 2), images + 1)


REJECTS = LimitDefinition(
    name="rejects",
    settings=RejectsLimit,
    about="Rise in the share of images that a scanner must reject to stay within an error.",
    example={"max": "1pp"},
    judge=judge_rejects,
)
ECE = LimitDefinition(
    name="ece",
    settings=EceLimit,
    about="Change of the expected calibration error, either way.",
    example={"max": "1pp"},
    judge=judge_ece,
)

"""Confidence: what a scanner that rejects what it is unsure of would notice.

The reject rate at a fixed error is where the risk-coverage curve (El-Yaniv and Wiener 2010, JMLR 11:1605-1641) meets
that error. The expected calibration error is that of Guo et al. 2017 (arXiv:1706.04599), in equal-width bins.

Both are judged by what changes from the baseline on the same images (the reject rate by its rise, the calibration
error by its change either way), by one-sided bounds from a paired bootstrap over images. Each bound lies as far from
the rise seen as the farther of the percentile and the basic bound: both statistics are biased in small samples, the
resamples are biased twice, and which of the two bounds suffers depends on the file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from toolchain.errors import EvidenceError
from toolchain.evaluation.paired_answers import Confidences, Pairs
from toolchain.gate.limit import MarginLimit
from toolchain.gate.outcome import Verdict
from toolchain.quantities import beside, percent_text, points_text
from toolchain.stats.decision import POWER, Outcome, normal_quantile
from toolchain.written import Points


class RejectsLimit(MarginLimit):
    """Rise in the share of images that must be rejected so that at most `error` of the accepted ones are wrong."""

    error: Points = Field(
        default=0.01, description="share of the accepted images that may be wrong", json_schema_extra={"default": "1pp"}
    )


class EceLimit(MarginLimit):
    """Change of the expected calibration error, either way: how far confidence and accuracy lie apart."""


BINS = 15
"""Bins of the expected calibration error, as in Guo et al."""

_RESAMPLES = 1000
_BEYOND = 10
"""How many resamples must at least lie beyond a bound."""
_AT_ONCE = 500_000
"""Counts that are held at once: 4 MB, which stay in the processor's cache."""

Flags = NDArray[np.bool_]
Counts = NDArray[np.int64]
Statistic = Callable[[Counts], NDArray[np.float64]]
"""Of images taken as often as the counts int64 [R, N] say: float64 [R]."""


@dataclass(frozen=True)
class Rejection:
    """The smallest share of images to reject, the least confidence accepted; None where no threshold will do."""

    rate: float
    threshold: float | None


@dataclass(frozen=True)
class Rise:
    """Of a statistic from the baseline to the candidate: as seen, its one-sided bounds, its standard error."""

    seen: float
    lower: float
    upper: float
    error: float


def rejection(confidence: Confidences, right: Flags, error: float) -> Rejection:
    """Return the smallest share of images to reject so that at most `error` of the accepted ones are wrong.

    confidence: float [N]. right: bool [N]. The least confident images are rejected first, equally confident ones
    together. A rate of 1.0 when no threshold does it. Raises EvidenceError without images or with NaN.
    """
    rate = float(_rates(confidence, right, error)(_once(right))[0])
    if rate == 1.0:
        return Rejection(rate, None)
    # The rate is of whole images.
    return Rejection(rate, float(np.sort(confidence)[round(rate * len(right))]))


def ece(confidence: Confidences, right: Flags, bins: int = BINS) -> float:
    """Return the expected calibration error: how far confidence and accuracy lie apart, by bins of confidence.

    confidence: float [N], 0 to 1. right: bool [N]. Raises EvidenceError without images or with NaN.
    """
    return float(_gaps(confidence, right, bins)(_once(right))[0])


def _once(right: Flags) -> Counts:
    return np.ones((1, len(right)), np.int64)


def _rates(confidence: Confidences, right: Flags, error: float) -> Statistic:
    """Return the reject rate as a statistic of how often each image is taken."""
    _check(confidence, right)
    order = np.argsort(-confidence, kind="stable")
    falling, wrong = confidence[order], (~right[order]).astype(np.int64)
    ends = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))  # equals are accepted together

    def of(counts: Counts) -> NDArray[np.float64]:
        taken = counts[:, order]
        accepted, bad = np.cumsum(taken, axis=1)[:, ends], np.cumsum(taken * wrong, axis=1)[:, ends]
        # 0.29 of 100 images are 28.999999999999996 in floating point.
        fits = bad <= error * accepted * (1 + 1e-12)
        most = np.where(fits, accepted, 0).max(axis=1)
        return np.asarray((accepted[:, -1] - most) / accepted[:, -1], np.float64)

    return of


def _gaps(confidence: Confidences, right: Flags, bins: int) -> Statistic:
    """Return the calibration error as a statistic of how often each image is taken."""
    _check(confidence, right)
    # Bins are open below and closed above, as Guo et al. have them.
    place = np.clip(np.ceil(confidence.astype(np.float64) * bins).astype(np.int64) - 1, 0, bins - 1)
    gap = confidence.astype(np.float64) - right
    by_bin = np.where(place[:, None] == np.arange(bins), gap[:, None], 0.0)
    return lambda counts: np.asarray(np.abs(counts @ by_bin).sum(axis=1) / counts.sum(axis=1), np.float64)


def _check(confidence: Confidences, right: Flags) -> None:
    # Written so that NaN is refused too.
    if not len(right) or confidence.shape != right.shape or not ((confidence >= 0) & (confidence <= 1)).all():
        raise EvidenceError("confidences must be probabilities, one an image, of at least one; evaluate again")


def rise_between(before: Statistic, after: Statistic, images: int, confidence: float, seed: int = 0) -> Rise:
    """Return the rise after - before with bounds at `confidence` each, from a seeded paired bootstrap over images.

    At least 1,000 resamples, and so many that 10 lie beyond each bound.
    """
    once = np.ones((1, images), np.int64)
    seen = float((after(once) - before(once))[0])
    resamples, rng = max(_RESAMPLES, ceil(_BEYOND / (1 - confidence))), np.random.default_rng(seed)
    rises = np.empty(resamples)
    step = max(1, _AT_ONCE // images)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(0, images, (rows, images)) + np.arange(rows)[:, None] * images
        counts = np.bincount(drawn.reshape(-1), minlength=rows * images).reshape(rows, images)
        rises[start : start + rows] = after(counts) - before(counts)
    low, high = np.quantile(rises, [1 - confidence, confidence])
    reach = max(high - seen, seen - low)
    return Rise(seen, float(seen - reach), float(seen + reach), float(rises.std()))


def judge_rejects(limit: RejectsLimit, pairs: Pairs) -> Verdict:
    """Judge the rise in the share of images that must be rejected to keep the error of the others at `limit.error`.

    A candidate that no threshold brings to that error never passes, unless it answers as the baseline does.
    """
    before, after = (rejection(sure, right, limit.error) for sure, right in _both(pairs))
    rates = [_rates(sure, right, limit.error) for sure, right in _both(pairs)]
    rise = rise_between(rates[0], rates[1], len(pairs), limit.confidence)
    seen = (
        f"at most {percent_text(limit.error)} of the accepted wrong: {_rejects(before)} rejected by the baseline, "
        f"{_rejects(after)} by the candidate; {_kept(before, pairs)}"
    )
    lost = after.threshold is None and not _alike(pairs)
    return _verdict("rejects", limit, rise, seen, len(pairs), may_pass=not lost)


def judge_ece(limit: EceLimit, pairs: Pairs) -> Verdict:
    """Judge the change of the expected calibration error, either way.

    A file whose confidence suits its accuracy better all at once answers otherwise too: thresholds that were set with
    the baseline no longer hold.
    """
    before, after = (_gaps(sure, right, BINS) for sure, right in _both(pairs))
    rise = rise_between(before, after, len(pairs), limit.confidence)
    # Both bounds lie equally far from what was seen, so the nearer side cannot be the one beyond its margin.
    change = rise if rise.seen >= 0 else Rise(-rise.seen, -rise.upper, -rise.lower, rise.error)
    shares = (percent_text(ece(sure, right)) for sure, right in _both(pairs))
    means = (percent_text(float(sure.mean(dtype=np.float64))) for sure, _ in _both(pairs))
    seen = "calibration error {} of the baseline, {} of the candidate".format(*shares)
    seen += " (mean confidence {} and {})".format(*means)
    return _verdict("ece", limit, change, seen, len(pairs), what="change" if rise.seen >= 0 else "change (a fall)")


def _both(pairs: Pairs) -> tuple[tuple[Confidences, Flags], tuple[Confidences, Flags]]:
    """Return confidence and whether it was right, of the baseline and of the candidate."""
    return (
        (pairs.before_confidence, np.equal(pairs.before, pairs.labels)),
        (pairs.after_confidence, np.equal(pairs.after, pairs.labels)),
    )


def _alike(pairs: Pairs) -> bool:
    return not pairs.flipped.any() and np.array_equal(pairs.before_confidence, pairs.after_confidence)


def _rejects(found: Rejection) -> str:
    if found.threshold is None:
        return "all"
    return f"{percent_text(found.rate)} (below a confidence of {found.threshold:.4f})"


def _kept(before: Rejection, pairs: Pairs) -> str:
    """Return what a scanner would see that keeps the baseline's threshold."""
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
    seen: str,
    images: int,
    *,
    what: str = "rise",
    may_pass: bool = True,
) -> Verdict:
    sure = f"with {limit.confidence * 100:.4g} % confidence"
    low, high, point = (beside(value, limit.max, points_text) for value in (rise.lower, rise.upper, rise.seen))
    margin = f"margin of {points_text(limit.max, 3).rstrip('0').rstrip('.')} pp"
    needed = None
    if may_pass and rise.upper < limit.max:
        outcome, bound = Outcome.PASS, rise.upper
        words = f"at most {high} pp {sure}, within the {margin}"
    elif rise.lower > limit.max:
        outcome, bound = Outcome.FAIL, rise.lower
        words = f"at least {low} pp {sure}, beyond the {margin}"
    else:
        outcome, bound = Outcome.INCONCLUSIVE, rise.upper
        needed = _images_needed(limit, rise, images)
        words = f"between {low} and {high} pp {sure}, cannot be told from the "
        words += margin + (f"; about {needed:,} images like these would decide" if needed else "")
        words += "" if may_pass else "; no threshold brings the candidate to that error: allow a larger one"
    reason = f"{what} of {point} pp, {words}; {seen}"
    return Verdict(name, outcome, limit.action, limit.max, rise.seen, bound, reason, needed)


def _images_needed(limit: RejectsLimit | EceLimit, rise: Rise, images: int) -> int | None:
    """Return how many images would decide at the rise seen, by its standard error; None where none can tell."""
    distance = abs(limit.max - rise.seen)
    if not distance or not rise.error:
        return None
    z = normal_quantile(limit.confidence) + normal_quantile(POWER)
    return max(ceil(images * (z * rise.error / distance) ** 2), images + 1)

"""How each kind of limit is judged; one function a kind, each gives one Verdict.

Accuracy is judged by a non-inferiority test on the one-sided Tango bounds of the paired drop, at the limit's
confidence: PASS when the upper bound lies below the margin, FAIL when the lower bound lies above it, otherwise
INCONCLUSIVE with the number of images that would decide at the shares seen (`tango.pairs_to_decide`, power 80 %).
So a candidate that was seen to drop by more than the margin never passes, nor does one judged on too few images.
"""

from __future__ import annotations

import math

from targets.target import Timings
from toolchain.errors import EvidenceError
from toolchain.quantities import percent_text, points_text, size_text, time_text
from toolchain.verdict import tango
from toolchain.verdict.compare import Comparison
from toolchain.verdict.outcome import Outcome, Verdict
from toolchain.verdict.policy import Action, DropLimit, ShrinkLimit, SizeLimit, TimeLimit, TimeRatioLimit

POWER = 0.8


def judge_drop(limit: DropLimit, comparison: Comparison) -> Verdict:
    """Judge the fall in accuracy against the margin."""
    b, c, n = comparison.lost, comparison.gained, comparison.images
    lower = float(tango.lower_bound(b, c, n, limit.confidence))
    upper = float(tango.upper_bound(b, c, n, limit.confidence))
    seen = f"{points_text(comparison.drop, 3)} pp on {n:,} images ({b:,} lost, {c:,} gained)"
    margin, sure = f"margin of {limit.max * 100:.4g} pp", f"with {limit.confidence * 100:.4g} % confidence"
    needed = None
    if upper < limit.max:
        outcome, bound = Outcome.PASS, upper
        reason = f"{seen}, at most {points_text(upper, 3)} pp {sure}, within the {margin}"
    elif lower > limit.max:
        outcome, bound = Outcome.FAIL, lower
        reason = f"{seen}, at least {points_text(lower, 3)} pp {sure}, beyond the {margin}{_suffered(comparison)}"
    else:
        outcome, bound = Outcome.INCONCLUSIVE, upper
        needed = _images_needed(limit, comparison)
        reason = (
            f"{seen}, between {points_text(lower, 3)} and {points_text(upper, 3)} pp {sure}, cannot be told from the "
            f"{margin}; "
            f"{_advice(needed)}{_suffered(comparison) if comparison.drop > limit.max else ''}"
        )
    return Verdict("drop", outcome, limit.action, limit.max, comparison.drop, bound, reason, needed)


def _images_needed(limit: DropLimit, comparison: Comparison) -> int | None:
    n = comparison.images
    needed = tango.pairs_to_decide(
        comparison.lost / n, comparison.gained / n, limit.max, confidence=limit.confidence, power=POWER
    )
    return None if needed is None else max(needed, n + 1)


def _advice(needed: int | None) -> str:
    if needed is None:
        return "no number of images decides a drop that equals the margin: set another one"
    return f"about {needed:,} images like these would decide ({POWER * 100:.0f} % power)"


def _suffered(comparison: Comparison) -> str:
    """Return the classes that lost the most and what they are now read as, for the end of a reason."""
    classes = ", ".join(
        f"'{row.label}' ({percent_text(row.drop)} of {row.images} images)" for row in comparison.worst(5)
    )
    confusions = ", ".join(map(str, comparison.confusions[:3]))
    return f"; suffered most: {classes}" + (f"; {confusions}" if confusions else "")


def judge_size(limit: SizeLimit, size: int) -> Verdict:
    """Judge the size of the file."""
    outcome = _within("size", _positive("size", size), limit.max)
    reason = f"{size:,} bytes ({size_text(size)}), {_side(outcome)} {size_text(limit.max)}"
    return Verdict("size", outcome, limit.action, limit.max, size, None, reason)


def judge_shrink(limit: ShrinkLimit, size: int, baseline: int) -> Verdict:
    """Judge how many times smaller than the baseline the file is."""
    times = _positive("baseline size", baseline) / _positive("size", size)
    outcome = Outcome.PASS if times >= limit.min else Outcome.FAIL
    reason = f"{times:.2f} times smaller than the baseline, at least {limit.min:g} asked for"
    return Verdict("shrink", outcome, limit.action, limit.min, times, None, reason)


def judge_time(limit: TimeLimit, name: str, q: float, timings: Timings) -> Verdict:
    """Judge a percentile of the latency."""
    measured = timings.percentile(q)
    if measured is None or timings.facts.simulated:
        return _untimed(name, limit.action, limit.max, q, timings)
    seconds = measured / 1e9
    outcome = _within(name, _positive(name, seconds), limit.max)
    facts = timings.facts
    where = f"{facts.target}, {facts.threads} thread{'s' * (facts.threads != 1)}, batch {timings.batch}"
    reason = f"{time_text(seconds)} ({where}), {_side(outcome)} {time_text(limit.max)}"
    return Verdict(name, outcome, limit.action, limit.max, seconds, None, reason)


def judge_time_ratio(limit: TimeRatioLimit, name: str, q: float, own: Timings, base: Timings) -> Verdict:
    """Judge the ratio of a percentile to the baseline's; the runtime may differ, threads and batch may not."""
    if (own.facts.threads, own.batch) != (base.facts.threads, base.batch):
        raise EvidenceError(f"{name}: candidate and baseline were timed with other threads or batch; time both alike")
    for timings in (own, base):
        if timings.percentile(q) is None or timings.facts.simulated:
            return _untimed(name, limit.action, limit.max, q, timings)
    own_ns, base_ns = (_positive(name, timings.percentile(q) or math.nan) for timings in (own, base))
    ratio = own_ns / base_ns
    outcome = _within(name, ratio, limit.max)
    reason = f"{ratio:.2f} of the baseline's, {_side(outcome)} {limit.max:g}"
    return Verdict(name, outcome, limit.action, limit.max, ratio, None, reason)


def _untimed(name: str, action: Action, threshold: float, q: float, timings: Timings) -> Verdict:
    """Return the verdict on a latency that the timings cannot show."""
    needed = None
    if timings.facts.simulated:
        reason = f"{timings.facts.device} is simulated, so its times mean nothing; time it on the device itself"
    elif timings.inner > 1 and q > 50:
        reason = f"each sample is the mean of {timings.inner} inferences, which hides the tail; time single inferences"
    else:
        needed = math.ceil(1000 / min(q, 100 - q))
        reason = f"{len(timings.samples_ns)} samples cannot show it; time at least {needed:,} inferences"
    return Verdict(name, Outcome.INCONCLUSIVE, action, threshold, None, None, reason, needed)


def _within(name: str, measured: float, limit: float) -> Outcome:
    """Return PASS up to the limit; raises EvidenceError on NaN, so that it can be neither."""
    if not math.isfinite(measured):
        raise EvidenceError(f"{name}: measured {measured}, which is no number; measure it again")
    return Outcome.PASS if measured <= limit else Outcome.FAIL


def _positive(name: str, measured: float) -> float:
    if not measured > 0:
        raise EvidenceError(f"{name}: measured {measured}, which cannot be; measure it again")
    return measured


def _side(outcome: Outcome) -> str:
    return "within the limit of" if outcome is Outcome.PASS else "beyond the limit of"

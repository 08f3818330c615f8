"""Speed: a latency, or its ratio to the baseline's, against a limit."""

from __future__ import annotations

import math

from targets.target import Timings
from toolchain.errors import EvidenceError
from toolchain.quantities import time_text
from toolchain.verdict.outcome import Outcome, Verdict
from toolchain.verdict.tables import Action, TimeLimit, TimeRatioLimit
from toolchain.verdict.threshold import positive, side, within


def judge_time(limit: TimeLimit, name: str, q: float, timings: Timings) -> Verdict:
    """Judge a percentile of the latency."""
    measured = timings.percentile(q)
    if measured is None or timings.facts.simulated:
        return _untimed(name, limit.action, limit.max, q, timings)
    seconds = measured / 1e9
    outcome = within(name, positive(name, seconds), limit.max)
    facts = timings.facts
    where = f"{facts.target}, {facts.threads} thread{'s' * (facts.threads != 1)}, batch {timings.batch}"
    reason = f"{time_text(seconds)} ({where}), {side(outcome)} {time_text(limit.max)}"
    return Verdict(name, outcome, limit.action, limit.max, seconds, None, reason)


def judge_time_ratio(limit: TimeRatioLimit, name: str, q: float, own: Timings, base: Timings) -> Verdict:
    """Judge the ratio of a percentile to the baseline's; the runtime may differ, threads and batch may not."""
    if (own.facts.threads, own.batch) != (base.facts.threads, base.batch):
        raise EvidenceError(f"{name}: candidate and baseline were timed with other threads or batch; time both alike")
    for timings in (own, base):
        if timings.percentile(q) is None or timings.facts.simulated:
            return _untimed(name, limit.action, limit.max, q, timings)
    own_ns, base_ns = (positive(name, timings.percentile(q) or math.nan) for timings in (own, base))
    ratio = own_ns / base_ns
    outcome = within(name, ratio, limit.max)
    reason = f"{ratio:.2f} of the baseline's, {side(outcome)} {limit.max:g}"
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

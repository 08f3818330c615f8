"""Speed: a latency, or its ratio to the baseline's, against a limit.

PASS when the upper bound of a bootstrap over rounds (`ratio`) is within the limit, FAIL when the lower bound is beyond
it, both at the limit's confidence; otherwise the machine was too noisy to say, and INCONCLUSIVE tells how much longer
to time. Time in which the system ran others in the middle of an inference is left out (`Timings.worked_ns`), but what
they did to caches and clocks is not. So timings of a machine that was not quiet can pass, but never fail.

Ratios are judged at 99.9 % by default: at a limit of 1.0x the same file twice lies right on the limit, so one run in
1 / (1 - confidence) raises an alarm, and at 99 % more than one of a hundred often would.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar

from targets.session import Timings, taints_of
from toolchain.core.errors import EvidenceError
from toolchain.core.quantities import beside, counted, time_beside
from toolchain.core.settings import Ratio, Seconds
from toolchain.evaluation.timings import LatencyRatio, latency_bounds, not_quiet, samples_for
from toolchain.gate.limit import Confidence, Limit, LimitDefinition, Measure, Verdict, by_bounds, positive
from toolchain.stats.bootstrap import MIN_ROUNDS, expansion
from toolchain.stats.decision import POWER, Outcome


class TimeLimit(Limit):
    """The largest latency of one inference, in seconds."""

    measure: ClassVar[Measure] = "seconds"
    max: Seconds
    confidence: Confidence = 0.99


class TimeRatioLimit(Limit):
    """The largest ratio of a latency to the baseline's, both timed in turns.

    At 99.9 %, so that of a hundred runs at a limit of 1.0x hardly one fails a file that is as fast as the baseline.
    """

    measure: ClassVar[Measure] = "ratio"
    max: Ratio
    confidence: Confidence = 0.999


PATIENCE = 3600.0
"""Seconds; where deciding would take longer, the advice is to move the limit."""


@dataclass(frozen=True)
class _Measured:
    """What the timings show. point, low, high: in the limit's unit; seconds: what the timing itself took."""

    point: float
    low: float
    high: float
    rounds: int
    inferences: int
    seconds: float

    def outcome(self, limit: float) -> Outcome:
        if self.high <= limit:
            return Outcome.PASS
        return Outcome.FAIL if self.low > limit else Outcome.INCONCLUSIVE

    def times_longer(self, limit: float, confidence: float) -> float:
        """Return how many times the rounds would decide, since a bound comes nearer with the root of their number."""
        distance = abs(math.log(self.point / limit))
        width = math.log(self.high / self.point if self.point <= limit else self.point / self.low)
        deviation = width / expansion(self.rounds, confidence)
        return ((width + NormalDist().inv_cdf(POWER) * deviation) / distance) ** 2 if distance else math.inf


def judge_time(limit: TimeLimit, name: str, q: float, timings: Timings) -> Verdict:
    """Judge a percentile of the latency; raises EvidenceError on times that cannot be."""
    if hidden := _hidden(q, timings):
        return _undecidable(limit, name, None, *hidden)
    seconds = positive(name, timings.percentile(q) or math.nan) / 1e9
    bounds = latency_bounds(timings, q, confidence=limit.confidence)
    if bounds is None:
        return _undecidable(limit, name, seconds, *_too_few_rounds(q, timings))
    low, high = (bound / 1e9 for bound in bounds)
    measured = _Measured(seconds, low, high, len(timings.blocks), _inferences(timings), _seconds(timings))
    return _verdict(limit, name, measured, [timings], time_beside)


def judge_time_ratio(limit: TimeRatioLimit, name: str, q: float, candidate: Timings, baseline: Timings) -> Verdict:
    """Judge the ratio of a percentile to the baseline's; the runtime may differ, threads and batch may not.

    Raises EvidenceError where they do, and on timings that were not taken in the same rounds.
    """
    if (candidate.facts.threads, candidate.batch) != (baseline.facts.threads, baseline.batch):
        raise EvidenceError(f"{name}: candidate and baseline were timed with other threads or batch; time both alike")
    for timings in (candidate, baseline):
        if hidden := _hidden(q, timings):
            return _undecidable(limit, name, None, *hidden)
    ratio = LatencyRatio.of(candidate, baseline, q=q, confidence=limit.confidence)
    if ratio is None or ratio.low is None or ratio.high is None:
        return _undecidable(limit, name, None if ratio is None else ratio.ratio, *_too_few_rounds(q, candidate))
    seconds = _seconds(candidate) + _seconds(baseline)
    measured = _Measured(
        positive(name, ratio.ratio), ratio.low, ratio.high, ratio.rounds, _inferences(candidate), seconds
    )
    return _verdict(limit, name, measured, [candidate, baseline], _ratio_beside, of=" of the baseline's")


def _verdict(
    limit: TimeLimit | TimeRatioLimit,
    name: str,
    measured: _Measured,
    timed: Sequence[Timings],
    beside_limit: Callable[[float, float], str],
    *,
    of: str = "",
) -> Verdict:
    outcome, tainted = measured.outcome(limit.max), "".join(not_quiet(taints_of(timed)))
    note = f" ({_where(timed)}, {counted(measured.rounds, 'round')})"
    loud = f"; {tainted}" * bool(tainted)
    low, high, point = (beside_limit(value, limit.max) for value in (measured.low, measured.high, measured.point))
    nearest = measured.low if measured.low > limit.max else measured.high
    needed, point, shown_limit = None, point + of, beside_limit(limit.max, nearest)
    side = "would be beyond" if outcome is Outcome.FAIL and tainted else ""
    bounds_text = by_bounds(outcome, low, high, f"limit of {shown_limit}", limit.confidence, note=note, side=side)
    reason = f"{point}, {bounds_text}"
    if outcome is Outcome.PASS:
        reason += loud
    elif outcome is Outcome.FAIL and tainted:
        outcome = Outcome.INCONCLUSIVE
        reason += f"{loud}: stop what else runs here, or keep it to other cores, then time again"
    elif outcome is Outcome.INCONCLUSIVE:
        longer = measured.times_longer(limit.max, limit.confidence)
        seconds, advice = longer * measured.seconds, "an hour of timing would not decide: move the limit"
        if seconds <= PATIENCE:
            needed = _rounded_up(longer * measured.inferences)
            advice = f"about {needed:,} inferences of each file ({_duration(seconds)}) would decide"
        reason += f"; {advice}, or time on a quieter machine{loud}"
    bound = measured.low if outcome is Outcome.FAIL else measured.high
    return Verdict(name, outcome, limit.action, limit.max, measured.point, bound, reason, needed)


def _undecidable(
    limit: TimeLimit | TimeRatioLimit, name: str, measured: float | None, reason: str, needed: int | None
) -> Verdict:
    """Return the verdict on a latency that the timings cannot show."""
    return Verdict(name, Outcome.INCONCLUSIVE, limit.action, limit.max, measured, None, reason, needed)


def _hidden(q: float, timings: Timings) -> tuple[str, int | None] | None:
    """Return why the timings cannot show a percentile, and the inferences that would; None where they can."""
    if timings.facts.simulated:
        return f"{timings.facts.device} is simulated, so its times mean nothing; time it on the device itself", None
    if timings.inner > 1 and q > 50:
        each = f"each sample is the mean of {timings.inner} inferences"
        return f"{each}, which hides the tail; time single inferences", None
    if timings.percentile(q) is None:
        needed = samples_for(q)
        reason = f"{counted(len(timings.samples_ns), 'sample')} cannot show it; time at least {needed:,} inferences"
        return reason, needed
    return None


def _too_few_rounds(q: float, timings: Timings) -> tuple[str, int]:
    needed = MIN_ROUNDS * samples_for(q)
    count, rounds = len(timings.samples_ns), len(timings.blocks)
    reason = f"{counted(count, 'sample')} in {counted(rounds, 'round')} cannot show how sure it is"
    return f"{reason}; time at least {needed:,} inferences in {MIN_ROUNDS} rounds or more", needed


def _inferences(timings: Timings) -> int:
    return len(timings.samples_ns) * timings.inner


def _seconds(timings: Timings) -> float:
    return float(timings.samples_ns.sum()) * timings.inner / 1e9


def _ratio_beside(ratio: float, limit: float) -> str:
    return beside(ratio, limit, "{:.{}f}".format, 3)


def _where(timed: Sequence[Timings]) -> str:
    threads, batch = timed[0].facts.threads, timed[0].batch
    places = " against ".join(dict.fromkeys(timings.facts.target for timings in timed))
    return f"{places}, {counted(threads, 'thread')}, batch {batch}"


def _rounded_up(count: float) -> int:
    """Return the next whole number of two digits and zeros: more of them would claim to know more."""
    step = int(10 ** max(len(str(math.floor(count))) - 2, 0))
    return (math.floor(count / step) + 1) * step


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"


def _time(name: str, q: float, about: str, maximum: str) -> LimitDefinition:
    return LimitDefinition(
        name=name,
        settings=TimeLimit,
        about=about,
        example={"max": maximum},
        evidence=("timings",),
        judge=lambda limit, timings: judge_time(limit, name, q, timings),
        file_must="be timed",
    )


def _ratio(name: str, q: float, about: str, maximum: str) -> LimitDefinition:
    return LimitDefinition(
        name=name,
        settings=TimeRatioLimit,
        about=about,
        example={"max": maximum},
        evidence=("timings", "baseline_timings"),
        judge=lambda limit, candidate, baseline: judge_time_ratio(limit, name, q, candidate, baseline),
        file_must="be timed",
        baseline_must="be timed",
    )


P50 = _time("p50", 50.0, "Median latency of one inference.", "1ms")
P95 = _time("p95", 95.0, "Latency that 95 of 100 inferences stay within.", "2ms")
P50_RATIO = _ratio("p50_ratio", 50.0, "Median latency against the baseline's, timed in turns.", "1x")
P95_RATIO = _ratio("p95_ratio", 95.0, "The same of the 95th percentile.", "1.2x")

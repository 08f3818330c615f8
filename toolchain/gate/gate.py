"""The gate: a policy and the evidence give verdicts. It fails closed: a limit without evidence is an error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from toolchain.errors import EvidenceError
from toolchain.evaluation.compare import comparison
from toolchain.evaluation.paired_answers import Pairs
from toolchain.gate.baseline import check_floor, check_pin
from toolchain.gate.evidence import Evidence
from toolchain.gate.limits.classes import judge_classes
from toolchain.gate.limits.confidence import judge_ece, judge_rejects
from toolchain.gate.limits.confusables import judge_confusables, judge_cost
from toolchain.gate.limits.drop import DropLimit, judge_drop
from toolchain.gate.limits.flips import judge_flips
from toolchain.gate.limits.leaks import judge_leaks
from toolchain.gate.limits.memory import judge_memory
from toolchain.gate.limits.preprocess import PreprocessLimit, judge_preprocess, likely_cause
from toolchain.gate.limits.runtimes import judge_runtimes
from toolchain.gate.limits.sizes import judge_shrink, judge_size
from toolchain.gate.limits.speed import judge_time, judge_time_ratio
from toolchain.gate.limits.stress import judge_stress
from toolchain.gate.outcome import Verdict, overall, raise_for
from toolchain.gate.policy import Policy
from toolchain.stats.decision import Outcome

__all__ = ["Outcome", "Verdict", "judge", "overall", "raise_for"]

E = TypeVar("E")

# One line a limit: which part of the evidence it is judged by.
JUDGES: dict[str, Callable[[Any, Evidence], Verdict]] = {
    "drop": lambda limit, e: _judge_drop(limit, e.pairs),
    "classes": lambda limit, e: judge_classes(limit, e.pairs),
    "confusables": lambda limit, e: judge_confusables(limit, e.pairs),
    "cost": lambda limit, e: judge_cost(limit, e.pairs),
    "flips": lambda limit, e: judge_flips(limit, e.pairs),
    "rejects": lambda limit, e: judge_rejects(limit, e.pairs),
    "ece": lambda limit, e: judge_ece(limit, e.pairs),
    "stress": lambda limit, e: judge_stress(limit, _need(e.stress or None, "stress"), e.pairs.labels),
    "runtimes": lambda limit, e: judge_runtimes(limit, _need(e.places or None, "runtimes")),
    "preprocess": lambda limit, e: judge_preprocess(limit, e.pairs),
    "leaks": lambda limit, e: judge_leaks(limit, _need(e.leaks, "leaks")),
    "size": lambda limit, e: judge_size("size", limit, e.pairs.candidate.bytes),
    "packed": lambda limit, e: judge_size("packed", limit, _need(e.packed, "packed")),
    "shrink": lambda limit, e: judge_shrink(limit, e.pairs.candidate.bytes, e.pairs.baseline.bytes),
    "memory": lambda limit, e: judge_memory(limit, _need(e.memory, "memory")),
    "p50": lambda limit, e: judge_time(limit, "p50", 50.0, _need(e.timings, "p50")),
    "p95": lambda limit, e: judge_time(limit, "p95", 95.0, _need(e.timings, "p95")),
    "p50_ratio": lambda limit, e: judge_time_ratio(limit, "p50_ratio", 50.0, *_both_times(e, "p50_ratio")),
    "p95_ratio": lambda limit, e: judge_time_ratio(limit, "p95_ratio", 95.0, *_both_times(e, "p95_ratio")),
}


def judge(policy: Policy, evidence: Evidence, *, competitors: int = 1) -> tuple[Verdict, ...]:
    """Judge every limit of the policy, in the policy's order, and that the candidate takes the baseline's images.

    competitors: of how many candidates the best will ship (`Policy.among`). Raises EvidenceError when a limit is
    asked for without the evidence it needs, or the baseline is not the one that the policy names or reads too little.
    """
    check_pin(policy, evidence.baseline_digest, evidence.pairs.baseline.name)
    pairs = evidence.pairs
    check_floor(policy, pairs.baseline.name, pairs.before, pairs.labels)
    verdicts = [JUDGES[limit](table, evidence) for limit, table in policy.among(competitors).limits()]
    if policy.preprocess is None:
        unasked = judge_preprocess(PreprocessLimit(), evidence.pairs)
        verdicts += [unasked] * (unasked.outcome is not Outcome.PASS)
    return tuple(replace(verdict, artifact=evidence.pairs.candidate.name) for verdict in verdicts)


def _judge_drop(limit: DropLimit, pairs: Pairs) -> Verdict:
    seen = comparison(pairs)
    return judge_drop(limit, seen, likely_cause(pairs, seen))


def _both_times(evidence: Evidence, limit: str) -> tuple[Any, Any]:
    return _need(evidence.timings, limit), _need(evidence.baseline_timings, limit)


def _need(evidence: E | None, limit: str) -> E:
    if evidence is None:
        raise EvidenceError(
            f"the policy limits {limit}, but the evidence does not hold it; gather it, or drop the limit"
        )
    return evidence

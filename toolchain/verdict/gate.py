"""The gate: a policy and the evidence give verdicts. It fails closed: a limit without evidence is an error."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from targets.target import Timings
from toolchain.errors import EvidenceError
from toolchain.verdict.compare import Comparison
from toolchain.verdict.limits import judge_drop, judge_shrink, judge_size, judge_time, judge_time_ratio
from toolchain.verdict.outcome import Outcome, Verdict, overall, raise_for
from toolchain.verdict.policy import Policy

__all__ = ["Outcome", "Verdict", "judge", "overall", "raise_for"]

E = TypeVar("E")


def judge(
    policy: Policy,
    *,
    comparison: Comparison | None = None,
    size: int | None = None,
    baseline_size: int | None = None,
    timings: Timings | None = None,
    baseline_timings: Timings | None = None,
) -> tuple[Verdict, ...]:
    """Judge every limit of the policy, in the policy's order.

    Sizes, in bytes, are the comparison's where they are not given. Raises EvidenceError when a limit is asked for
    without the evidence it needs, or when the evidence is of another file.
    """
    if comparison is not None:
        size = comparison.candidate_bytes if size is None else size
        baseline_size = comparison.baseline_bytes if baseline_size is None else baseline_size
        _check_file("candidate", comparison.candidate_sha256, timings)
        _check_file("baseline", comparison.baseline_sha256, baseline_timings)
    verdicts = []
    if policy.drop is not None:
        verdicts.append(judge_drop(policy.drop, _need(comparison, "drop", "a comparison with the baseline")))
    if policy.size is not None:
        verdicts.append(judge_size(policy.size, _need(size, "size", "the size of the file")))
    if policy.shrink is not None:
        own, base = _need(size, "shrink", "the size of the file"), _need(baseline_size, "shrink", "the baseline's size")
        verdicts.append(judge_shrink(policy.shrink, own, base))
    verdicts += _judge_times(policy, timings, baseline_timings)
    name = "" if comparison is None else comparison.candidate
    return tuple(replace(verdict, artifact=name) for verdict in verdicts)


def _judge_times(policy: Policy, timings: Timings | None, baseline: Timings | None) -> list[Verdict]:
    verdicts = []
    for name, q, limit in (("p50", 50.0, policy.p50), ("p95", 95.0, policy.p95)):
        if limit is not None:
            verdicts.append(judge_time(limit, name, q, _need(timings, name, "timings of the candidate")))
    for name, q, ratio in (("p50_ratio", 50.0, policy.p50_ratio), ("p95_ratio", 95.0, policy.p95_ratio)):
        if ratio is not None:
            own, base = (
                _need(timings, name, "timings of the candidate"),
                _need(baseline, name, "the baseline's timings"),
            )
            verdicts.append(judge_time_ratio(ratio, name, q, own, base))
    return verdicts


def _need(evidence: E | None, limit: str, what: str) -> E:
    if evidence is None:
        raise EvidenceError(f"the policy limits {limit}, but there is no evidence: give {what}, or drop the limit")
    return evidence


def _check_file(role: str, sha256: str, timings: Timings | None) -> None:
    if timings is not None and timings.artifact_sha256 != sha256:
        raise EvidenceError(f"the {role}'s timings are of another file than its evaluation; time and evaluate the same")

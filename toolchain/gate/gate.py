"""The gate: a policy and the evidence give verdicts. It fails closed: a limit without evidence is an error."""

from __future__ import annotations

from dataclasses import replace

from toolchain.core.errors import EvidenceError
from toolchain.gate.baseline import check_floor, check_pin
from toolchain.gate.evidence import Evidence
from toolchain.gate.limit import Limit, Verdict, overall, raise_for
from toolchain.gate.limits import definition, definitions
from toolchain.gate.policy import Policy
from toolchain.stats.decision import Outcome

__all__ = ["Outcome", "Verdict", "judge", "judge_limit", "overall", "raise_for"]


def judge(policy: Policy, evidence: Evidence, *, competitors: int = 1) -> tuple[Verdict, ...]:
    """Judge every limit of the policy, in the policy's order, and that the candidate takes the baseline's images.

    competitors: of how many candidates the best will ship (`Policy.among`). Raises EvidenceError when a limit is
    asked for without the evidence it needs, or the baseline is not the one that the policy names or reads too little.
    """
    check_pin(policy, evidence.baseline_digest, evidence.pairs.baseline.name)
    pairs = evidence.pairs
    check_floor(policy, pairs.baseline.name, pairs.before, pairs.labels)
    asked = dict(policy.among(competitors).limits())
    verdicts = [judge_limit(name, limit, evidence) for name, limit in asked.items()]
    unasked = (
        judge_limit(name, known.settings(), evidence)
        for name, known in definitions().items()
        if known.always and name not in asked
    )
    verdicts += [verdict for verdict in unasked if verdict.outcome is not Outcome.PASS]
    return tuple(replace(verdict, artifact=evidence.pairs.candidate.name) for verdict in verdicts)


def judge_limit(name: str, limit: Limit, evidence: Evidence) -> Verdict:
    """Judge one limit; raises EvidenceError where the evidence does not hold what it is judged by."""
    known = definition(name)
    parts = [getattr(evidence, part) for part in known.evidence]
    if any(part is None or part == () for part in parts):
        raise EvidenceError(
            f"the policy or an option limits {name}, but the evidence does not hold it; store it again with "
            "`glyphpress gate --evidence` and this limit, or drop the limit"
        )
    return known.judge(limit, *parts)

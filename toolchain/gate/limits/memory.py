"""Memory: the peak of resident memory that a session adds to a process."""

from __future__ import annotations

from targets.catalog import get
from toolchain.core.errors import UsageProblem
from toolchain.core.quantities import size_beside
from toolchain.gate.candidate import Sources
from toolchain.gate.limit import LimitDefinition, Verdict, positive, side, within
from toolchain.gate.limits.sizes import SizeLimit


class MemoryLimit(SizeLimit):
    """The largest peak of resident memory that a session adds to a process, in bytes."""


def judge_memory(limit: MemoryLimit, peak: int) -> Verdict:
    """Judge the peak, in bytes, of `LocalTarget.peak_memory`."""
    outcome = within("memory", positive("memory", peak), limit.max)
    reason = (
        f"opening it and a first inference add {size_beside(peak, limit.max)} of resident memory, {side(outcome)} "
        f"{size_beside(limit.max, peak)}"
    )
    return Verdict("memory", outcome, limit.action, limit.max, peak, None, reason)


def _collect(_: MemoryLimit, sources: Sources) -> int:
    artifact, facts = sources.file(MEMORY), sources.candidate.evaluation.facts
    if facts.cost != "latency":
        raise UsageProblem(
            f"[memory] is measured on devices, and {facts.target} is none; take another target, or drop the limit"
        )
    return get(facts.target).peak_memory(artifact, threads=sources.context.threads)


MEMORY = LimitDefinition(
    name="memory",
    settings=MemoryLimit,
    about="Peak of resident memory that a session adds.",
    example={"max": "32MB"},
    evidence=("memory",),
    judge=judge_memory,
    collect=_collect,
    file_must="be opened",
    device=True,
)

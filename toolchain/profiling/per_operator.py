"""The time that each operator of an artifact takes, target by target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from targets.artifact import Artifact
from targets.errors import TargetUnavailable
from targets.host.local_target import operators
from targets.host.machine import machine_state, pinned, taints
from targets.host.runtime_session import PROFILE_RUNS, resolved_threads
from targets.session import Operator
from toolchain.core.context import Progress, silent
from toolchain.profiling.measurements import paired


@dataclass(frozen=True, eq=False)
class Breakdown:
    """The operators of one artifact on one target, in the order of execution.

    taints: what made the machine less than quiet meanwhile, in words. cores: how many there were to use.
    """

    artifact: Artifact
    target: str
    threads: int
    batch: int
    operators: tuple[Operator, ...]
    taints: tuple[str, ...] = ()
    cores: int = 0

    @property
    def ns(self) -> float:
        """What all operators take together."""
        return sum(operator.ns for operator in self.operators)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types; times in nanoseconds."""
        settings = {name: getattr(self, name) for name in ("target", "threads", "batch", "ns")}
        rows = [asdict(operator) for operator in self.operators]
        named = {"artifact": self.artifact.path.name, "sha256": self.artifact.sha256}
        return named | settings | {"runs": PROFILE_RUNS, "taints": list(self.taints), "operators": rows}


def per_operator(
    artifacts: Sequence[Artifact],
    targets: Sequence[str] = (),
    *,
    threads: int = 1,
    batch: int = 1,
    pin: Sequence[int] = (),
    progress: Progress = silent,
) -> tuple[Breakdown, ...]:
    """Profile the operators of every artifact on every target that takes it, each in a fresh process.

    pin: the cores to keep to, none for all. Where the machine was not quiet a file is profiled once more.

    Raises what `paired` raises, TargetUnavailable where a target is not here, RunFailed where it has no profiler.
    """
    pairs = paired(artifacts, targets)
    for target in dict.fromkeys(target for target, _ in pairs):
        state = target.probe()
        if not state.ok:
            raise TargetUnavailable(f"{target.name}: {state.reason}", state.fix)
    breakdowns = []
    for done, (target, artifact) in enumerate(pairs, 1):
        measure = partial(operators, artifact, target, threads=threads, batch=batch)
        with pinned(pin):
            count, cores = resolved_threads(threads), resolved_threads(0)
            measured, tainted = _watched(measure)
            if tainted:
                again = _watched(measure)
                measured, tainted = (measured, tainted) if again[1] else again
        breakdowns.append(Breakdown(artifact, target.name, count, batch, tuple(measured), tainted, cores))
        progress("profiling operators", done, len(pairs))
    return tuple(breakdowns)


def _watched(measure: Callable[[], list[Operator]]) -> tuple[list[Operator], tuple[str, ...]]:
    """Return what is measured, and what made the machine less than quiet meanwhile."""
    before = machine_state()
    return measure(), taints(before, machine_state())

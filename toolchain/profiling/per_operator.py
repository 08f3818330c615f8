"""The time of each operator of an artifact on one or more targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from targets.artifact import Artifact
from targets.errors import TargetUnavailable
from targets.host.local_target import operators
from targets.host.machine import machine_state, pinned, taints
from targets.host.runtime_session import PROFILE_RUNS, resolved_threads
from targets.session import Operator
from toolchain.core.context import Progress, silent
from toolchain.core.json_codec import json_types
from toolchain.profiling.measurements import paired


@dataclass(frozen=True, eq=False)
class Breakdown:
    """The operators of one artifact on one target, in the order of execution.

    taints: the reasons why the machine was not quiet. cores: number of usable cores.
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
        """The time of all operators together."""
        return sum(operator.ns for operator in self.operators)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types; times in nanoseconds."""
        known: dict[str, Any] = {"artifact": self.artifact.path.name, "sha256": self.artifact.sha256}
        known |= {name: getattr(self, name) for name in ("target", "threads", "batch", "ns")}
        return json_types(known | {"runs": PROFILE_RUNS, "taints": self.taints, "operators": self.operators})


def per_operator(
    artifacts: Sequence[Artifact],
    targets: Sequence[str] = (),
    *,
    threads: int = 1,
    batch: int = 1,
    pin: Sequence[int] = (),
    progress: Progress = silent,
) -> tuple[Breakdown, ...]:
    """Profile the operators of every artifact on every target that takes it, each in a new process.

    pin: the cores to run on, none for all. A file is profiled once more if the machine was not quiet. Raises as
    `paired` does, TargetUnavailable for an unavailable target, and RunFailed for one without a profiler.
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
    """Return the operators, and the reasons why the machine was not quiet meanwhile."""
    before = machine_state()
    return measure(), taints(before, machine_state())

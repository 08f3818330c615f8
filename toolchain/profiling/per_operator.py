"""What the operators of artifacts take, place by place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from targets.artifact import Artifact
from targets.errors import TargetUnavailable
from targets.operators import RUNS, Operator, operators
from targets.pinning import pinned
from toolchain.profiling.pairs import paired
from toolchain.progress import Progress, silent


@dataclass(frozen=True, eq=False)
class Breakdown:
    """The operators of one artifact in one place, in the order of execution."""

    artifact: Artifact
    target: str
    threads: int
    batch: int
    operators: tuple[Operator, ...]

    @property
    def ns(self) -> float:
        """What all operators take together."""
        return sum(one.ns for one in self.operators)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types; times in nanoseconds."""
        words = {name: getattr(self, name) for name in ("target", "threads", "batch", "ns")}
        rows = [asdict(one) for one in self.operators]
        named = {"artifact": self.artifact.path.name, "sha256": self.artifact.sha256}
        return named | words | {"runs": RUNS, "operators": rows}


def per_operator(
    artifacts: Sequence[Artifact],
    targets: Sequence[str] = (),
    *,
    threads: int = 1,
    batch: int = 1,
    pin: Sequence[int] = (),
    progress: Progress = silent,
) -> tuple[Breakdown, ...]:
    """Profile the operators of every artifact in every place that takes it, each in a fresh process.

    pin: the cores to keep to, none for all.

    Raises what `paired` raises, TargetUnavailable where a place is not here, RunFailed where it has no profiler.
    """
    pairs = paired(artifacts, targets)
    for place in dict.fromkeys(place for place, _ in pairs):
        state = place.probe()
        if not state.ok:
            raise TargetUnavailable(f"{place.name}: {state.reason}", state.fix)
    found = []
    for done, (place, artifact) in enumerate(pairs, 1):
        with pinned(pin):
            taken = operators(artifact, place, threads=threads, batch=batch)
        found.append(Breakdown(artifact, place.name, threads, batch, tuple(taken)))
        progress("profiling operators", done, len(pairs))
    return tuple(found)

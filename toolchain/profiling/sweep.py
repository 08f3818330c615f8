"""Sweep: the same file on more threads and in larger batches, each way in a fresh process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

from targets.agent.remote import Channel, RemoteSession, local_agent
from targets.artifact import Artifact
from targets.host.machine import pinned
from targets.host.runtime_session import resolved_threads
from targets.session import TimingPlan, Timings
from toolchain.core.errors import UsageProblem
from toolchain.core.progress import Progress, silent
from toolchain.profiling.latency import ROUNDS, time_interleaved
from toolchain.profiling.pairs import paired


@dataclass(frozen=True, eq=False)
class SweepPoint:
    """One way to run a file. refused: why there are no timings."""

    artifact: str
    target: str
    threads: int
    batch: int
    timings: Timings | None = None
    refused: str = ""

    @property
    def image_ns(self) -> float | None:
        """The median of what an image takes, in nanoseconds."""
        median = self.timings.percentile(50) if self.timings else None
        return median / self.batch if median is not None else None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types, without the samples."""
        words = {name: getattr(self, name) for name in ("artifact", "target", "threads", "batch", "refused")}
        found = self.timings
        facts = {"facts": asdict(found.facts), "samples": len(found.samples_ns)} if found else {}
        return words | facts | {"p50_ns": found.percentile(50) if found else None, "image_ns": self.image_ns}


def sweep(
    artifacts: Sequence[Artifact],
    targets: Sequence[str],
    threads: Sequence[int],
    batches: Sequence[int],
    *,
    plan: TimingPlan | None = None,
    rounds: int = ROUNDS,
    seed: int = 0,
    pin: Sequence[int] = (),
    progress: Progress = silent,
) -> tuple[SweepPoint, ...]:
    """Time every artifact in every way: a process for each target and number of threads, all of them in turns.

    pin: the cores to keep to, none for all. Without targets each format's usual one is taken. Raises UsageProblem for
    a target that is not of this machine, and what opening raises.
    """
    pairs = paired(artifacts, targets)
    for place, _ in pairs:
        if place.host or place.cost == "instructions":
            raise UsageProblem(f"{place.name} cannot be swept; take a target of this machine")
    words = [(one, place.name) for place, one in pairs]
    points: list[SweepPoint] = []
    with ExitStack() as stack:
        stack.enter_context(pinned(pin))
        ways = [
            _Way(one, word, count, stack.enter_context(closing(local_agent())))
            for (one, word), count in product(words, dict.fromkeys(threads))
        ]
        for batch in dict.fromkeys(batches):
            points += _timed(ways, replace(plan or TimingPlan(), batch=batch), rounds, seed, progress)
    return tuple(points)


@dataclass(frozen=True)
class _Way:
    """A file on a target with a number of threads, and the process that it has for itself."""

    artifact: Artifact
    target: str
    threads: int
    agent: Channel

    def open(self) -> RemoteSession:
        path = str(self.artifact.path.resolve())
        return RemoteSession(self.agent, self.artifact, path=path, runtime=self.target, threads=self.threads)


def _timed(ways: list[_Way], plan: TimingPlan, rounds: int, seed: int, progress: Progress) -> list[SweepPoint]:
    refused = [_fits(way.artifact, plan.batch) for way in ways]
    openings = [way.open for way, why in zip(ways, refused, strict=True) if not why]
    taken = iter(time_interleaved(openings, plan, rounds=rounds, seed=seed, progress=progress) if openings else ())
    points = []
    for way, why in zip(ways, refused, strict=True):
        timings = None if why else next(taken)
        threads = timings.facts.threads if timings else resolved_threads(way.threads)
        points.append(SweepPoint(way.artifact.path.name, way.target, threads, plan.batch, timings, why))
    return points


def _fits(artifact: Artifact, batch: int) -> str:
    """Return why a file does not run in batches of a size, or nothing."""
    fixed = artifact.inputs[0].shape[0] if artifact.inputs and artifact.inputs[0].shape else -1
    return f"its batch is fixed at {fixed}" if fixed > 0 and fixed != batch else ""

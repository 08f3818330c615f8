"""Sweep: the latency of files at several numbers of threads and batch sizes, a process for each number of threads."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from targets.agent import Channel, RemoteSession, local_agent
from targets.artifact import Artifact
from targets.host.machine import pinned
from targets.host.runtime_session import resolved_threads
from targets.session import TimingPlan, Timings
from toolchain.core.context import Progress, silent
from toolchain.core.errors import UsageProblem
from toolchain.core.json_codec import json_types
from toolchain.evaluation.timings import LatencyRatio
from toolchain.profiling.latency import ROUNDS, time_interleaved
from toolchain.profiling.measurements import paired


@dataclass(frozen=True, eq=False)
class SweepPoint:
    """One file with one number of threads and one batch size. refused: why there are no timings.

    speed_up: how many images it reads in the time of one of the first point of that file and target; None for that one.
    """

    artifact: str
    target: str
    threads: int
    batch: int
    timings: Timings | None = None
    refused: str = ""
    speed_up: LatencyRatio | None = None

    @property
    def image_ns(self) -> float | None:
        """The median time of one image, in nanoseconds."""
        median = self.timings.percentile(50) if self.timings else None
        return median / self.batch if median is not None else None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types, without the samples."""
        settings = {name: getattr(self, name) for name in ("artifact", "target", "threads", "batch", "refused")}
        timings = self.timings
        facts = {"facts": timings.facts, "samples": len(timings.samples_ns)} if timings else {}
        p50 = timings.percentile(50) if timings else None
        return json_types(settings | facts | {"p50_ns": p50, "image_ns": self.image_ns, "speed_up": self.speed_up})


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
    """Time every artifact at all numbers of threads and batch sizes, in turns.

    pin: the cores to run on, none for all. targets: as in `paired`. Raises as `paired` does, UsageProblem for a target
    that is not on this machine, and the errors of opening a file.
    """
    pairs = paired(artifacts, targets)
    for target, _ in pairs:
        if target.host or target.cost == "instructions":
            raise UsageProblem(f"{target.name} cannot be swept; give a target of this machine")
    points: list[SweepPoint] = []
    with ExitStack() as stack:
        stack.enter_context(pinned(pin))
        configurations = [
            _Configuration(artifact, target.name, count, stack.enter_context(closing(local_agent())))
            for (target, artifact), count in product(pairs, dict.fromkeys(threads))
        ]
        for batch in dict.fromkeys(batches):
            points += _timed(configurations, replace(plan or TimingPlan(), batch=batch), rounds, seed, progress)
    return with_speed_ups(points)


def with_speed_ups(points: Sequence[SweepPoint]) -> tuple[SweepPoint, ...]:
    """Return the points with their speed-ups. Those of one batch size were timed in turns, others were not."""
    first: dict[tuple[str, str], SweepPoint] = {}
    compared = []
    for point in points:
        base = first.setdefault((point.artifact, point.target), point) if point.timings else point
        compared.append(replace(point, speed_up=_speed_up(point, base)))
    return tuple(compared)


def _speed_up(point: SweepPoint, base: SweepPoint) -> LatencyRatio | None:
    if point is base or point.timings is None or base.timings is None:
        return None
    if point.batch == base.batch:
        return LatencyRatio.of(base.timings, point.timings)
    ratio = LatencyRatio.apart(base.timings, point.timings)
    images = point.batch / base.batch
    if ratio is None or ratio.low is None or ratio.high is None:
        return ratio and replace(ratio, ratio=ratio.ratio * images)
    return replace(ratio, ratio=ratio.ratio * images, low=ratio.low * images, high=ratio.high * images)


@dataclass(frozen=True)
class _Configuration:
    """A file on a target with a number of threads, and its process."""

    artifact: Artifact
    target: str
    threads: int
    agent: Channel

    def open(self) -> RemoteSession:
        path = str(self.artifact.path.resolve())
        return RemoteSession(self.agent, self.artifact, path=path, runtime=self.target, threads=self.threads)


def _timed(
    configurations: list[_Configuration], plan: TimingPlan, rounds: int, seed: int, progress: Progress
) -> list[SweepPoint]:
    refused = [_refusal(configuration.artifact, plan.batch) for configuration in configurations]
    openings = [configuration.open for configuration, reason in zip(configurations, refused, strict=True) if not reason]
    measured = iter(time_interleaved(openings, plan, rounds=rounds, seed=seed, progress=progress) if openings else ())
    points = []
    for configuration, reason in zip(configurations, refused, strict=True):
        timings = None if reason else next(measured)
        threads = timings.facts.threads if timings else resolved_threads(configuration.threads)
        points.append(
            SweepPoint(configuration.artifact.path.name, configuration.target, threads, plan.batch, timings, reason)
        )
    return points


def _refusal(artifact: Artifact, batch: int) -> str:
    """Return why a file does not run at a batch size, or an empty string."""
    fixed = artifact.inputs[0].shape[0] if artifact.inputs and artifact.inputs[0].shape else -1
    return f"its batch is fixed at {fixed}" if fixed > 0 and fixed != batch else ""

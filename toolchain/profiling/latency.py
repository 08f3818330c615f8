"""Latency of several artifacts, measured in turns so that a drift of the machine affects all of them equally.

Every round opens each file again, in a random order. The memory layout of a session makes it faster or slower for as
long as it is open: of two open sessions of one file, one is faster in every round, and more rounds do not average that
out (`bench/gate_aa.py` measures it). When each round opens the files again, the layout becomes noise between rounds,
which the interval over rounds covers (T. Mytkowicz et al., "Producing Wrong Data Without Doing Anything Obviously
Wrong!", ASPLOS 2009; C. Curtsinger and E. D. Berger, "STABILIZER", 2013).
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from targets.artifact import Artifact
from targets.catalog import default_for
from targets.errors import ArtifactError
from targets.host.machine import quiet_cores
from targets.metadata import adopt, describe, explained, load_artifact
from targets.preprocess import Preprocess
from targets.session import INTERRUPTED, Session, TimingPlan, Timings, taints_of
from targets.target import Target
from toolchain.core.context import Progress, RunContext, silent
from toolchain.core.errors import UsageProblem
from toolchain.core.json_codec import json_types
from toolchain.evaluation.timings import LatencyRatio, save_timings

_CHANGING = (  # entries of the machine state that are stored for the end of a run too
    *("load_average", "usable_cores", "governor", "mhz", "temperature_c", "throttled"),
    *("cores", "work_s", "own_s", "clock_s"),
)
PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
ROUNDS = 20

Opening = Callable[[], Session]
"""Opens a new session, once in every round."""


def time_interleaved(
    openings: Sequence[Opening], plan: TimingPlan, *, rounds: int = ROUNDS, seed: int = 0, progress: Progress = silent
) -> list[Timings]:
    """Time every opening in `rounds` blocks, in an order drawn by `seed` in each round; return one Timings for each.

    If other processes kept the machine busy, everything is timed once more, and the quieter of the two runs is
    returned. The plan is for all blocks of an opening together: each block takes its share of `min_runs`,
    `min_seconds` and `max_runs`, and the whole warm-up. `Timings.blocks` is where each block starts; `load_ns` and
    `first_run_ns` are medians over the rounds.
    """
    if rounds < 1 or rounds > plan.max_runs:
        raise UsageProblem(f"cannot time in {rounds} rounds; give 1 to {plan.max_runs}")
    first = _in_rounds(openings, plan, rounds, seed, partial(progress, "timing"))
    if not _disturbed(first):
        return first
    again = _in_rounds(openings, plan, rounds, seed, partial(progress, "timing again, since other processes were busy"))
    return min(first, again, key=lambda timings: (_busiest(timings), _interrupted(timings)))


def _disturbed(timings: Sequence[Timings]) -> bool:
    """Return whether other processes kept more of the machine busy than a quiet one allows."""
    cores = max((row.machine.get("cores", 1) for row in timings), default=1)
    return _busiest(timings) > quiet_cores(cores) or _interrupted(timings) > INTERRUPTED


def _busiest(timings: Sequence[Timings]) -> float:
    return max((row.busy_cores for row in timings if not row.facts.simulated), default=0.0)


def _interrupted(timings: Sequence[Timings]) -> float:
    return max((row.interrupted_share for row in timings if not row.facts.simulated), default=0.0)


def _in_rounds(
    openings: Sequence[Opening], plan: TimingPlan, rounds: int, seed: int, progress: Callable[[int, int], None]
) -> list[Timings]:
    share = replace(
        plan,
        min_runs=math.ceil(plan.min_runs / rounds),
        max_runs=math.ceil(plan.max_runs / rounds),
        min_seconds=plan.min_seconds / rounds,
    )
    random = np.random.default_rng(seed)
    blocks: list[list[Timings]] = [[] for _ in openings]
    with _frozen_objects():
        for done in range(rounds):
            for index in random.permutation(len(openings)):
                # Every block of a file uses the inner loop that its first block found.
                inner = blocks[index][0].inner if blocks[index] else plan.inner
                with openings[index]() as session:
                    blocks[index].append(session.time(replace(share, inner=inner)))
            progress(done + 1, rounds)
    return [_joined(timings) for timings in blocks]


@contextmanager
def _frozen_objects() -> Iterator[None]:
    """Exclude the objects that exist already from the garbage collection before each block (0.5 s with TensorFlow)."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _joined(blocks: list[Timings]) -> Timings:
    starts = np.cumsum([0, *(len(block.samples_ns) for block in blocks[:-1])])
    first, last = blocks[0], blocks[-1]
    end = {name: last.machine[name] for name in _CHANGING if name in last.machine}
    return replace(
        first,
        samples_ns=np.concatenate([block.samples_ns for block in blocks]),
        blocks=tuple(int(start) for start in starts),
        interrupted=tuple(
            (int(start) + index, ns)
            for start, block in zip(starts, blocks, strict=True)
            for index, ns in block.interrupted
        ),
        load_ns=int(np.median([block.load_ns for block in blocks])),
        first_run_ns=int(np.median([block.first_run_ns for block in blocks])),
        machine=first.machine | {"end": end},
    )


def percentiles(timings: Timings | None, *, raw: bool = False) -> dict[str, float | None]:
    """Return nanoseconds by name (p50 ... p99.9), None for each that the samples cannot carry; all None without any.

    raw: with the time that the system gave to others, which is taken out otherwise.
    """
    return {f"p{q:g}": timings.percentile(q, raw=raw) if timings else None for q in PERCENTILES}


def interruptions(timings: Timings) -> dict[str, Any]:
    """Return how many samples were interrupted, the share of the time taken out, and the percentiles with it."""
    return {
        "interrupted_samples": len(timings.interrupted),
        "interrupted_share": timings.interrupted_share,
        "raw_percentiles_ns": percentiles(None if timings.facts.simulated else timings, raw=True),
    }


def timed_facts(timings: Timings) -> dict[str, Any]:
    """Return how a file was timed and its percentiles, without the samples."""
    names = ("batch", "inner", "warmup", "load_ns", "first_run_ns", "machine")
    facts = {name: getattr(timings, name) for name in names}
    return facts | {"samples": len(timings.samples_ns), "percentiles_ns": percentiles(timings)} | interruptions(timings)


@dataclass(frozen=True, eq=False)
class ProfileRow:
    """The latency of one artifact. ratio, ratio_p95: of P50 and P95, to the first row's.

    They are None for the first row, and where the samples cannot carry the percentile.
    """

    artifact: Artifact
    timings: Timings
    ratio: LatencyRatio | None
    ratio_p95: LatencyRatio | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the samples as JSON types; times in nanoseconds."""
        known: dict[str, Any] = {
            "artifact": self.artifact.path.name,
            "sha256": self.artifact.sha256,
            "bytes": self.artifact.size,
            "facts": self.timings.facts,
            "ratio": self.ratio,
            "ratio_p95": self.ratio_p95,
        }
        return json_types(known | timed_facts(self.timings))


@dataclass(frozen=True, eq=False)
class Profile:
    """The latencies of several artifacts, timed in turns on one machine; ratios are to the first."""

    rows: tuple[ProfileRow, ...]
    plan: TimingPlan
    rounds: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the samples as JSON types."""
        rows = [row.to_dict() for row in self.rows]
        return json_types({"rows": rows, "plan": self.plan, "rounds": self.rounds, "seed": self.seed})

    @property
    def taints(self) -> tuple[str, ...]:
        """The reasons why the machine was not quiet."""
        return taints_of([row.timings for row in self.rows])

    def save_samples(self, path: Path, *, force: bool = False) -> None:
        """Write the raw nanoseconds (`toolchain.evaluation.timings`)."""
        save_timings(path, self.to_dict(), [row.timings for row in self.rows], force=force)


def profile(
    artifacts: Sequence[Artifact],
    *,
    target: Target | None = None,
    plan: TimingPlan | None = None,
    rounds: int = ROUNDS,
    context: RunContext | None = None,
) -> Profile:
    """Time artifacts in turns on `target`, by default that of each format, and compare each with the first.

    context: by default one thread. Load and first run are those of this process, where the runtime has started
    already. Raises UsageProblem without artifacts, or for a target that does not run a format; opening may raise too.
    """
    plan, context = plan or TimingPlan(), context or RunContext(threads=1)
    if not artifacts:
        raise UsageProblem("nothing to profile; name at least one artifact")
    openings = [partial(_target(artifact, target).open, artifact, threads=context.threads) for artifact in artifacts]
    timings = time_interleaved(openings, plan, rounds=rounds, seed=context.seed, progress=context.progress)
    first, *others = timings
    rows = [ProfileRow(artifacts[0], first, None)]
    for artifact, other in zip(artifacts[1:], others, strict=True):
        p50, p95 = (LatencyRatio.of(other, first, q=q, seed=context.seed) for q in (50.0, 95.0))
        rows.append(ProfileRow(artifact, other, p50, p95))
    return Profile(tuple(rows), plan, rounds, context.seed)


def timeable(path: Path) -> Artifact:
    """Return the artifact; a file without a sidecar gets numbers as classes, since timing needs no names.

    Raises ArtifactError when the file cannot be read, or its number of classes is not fixed.
    """
    if explained(path):
        return load_artifact(path)
    _, outputs = describe(path)
    width = outputs[0].shape[-1] if outputs[0].shape else -1
    if width < 1:
        raise ArtifactError(f"{path}: the file does not fix its number of classes; export it with a fixed output width")
    return adopt(path, preprocess=Preprocess(), classes=tuple(map(str, range(width))))


def started_cold(timings: Timings, artifact: Artifact, target: Target) -> Timings:
    """Return the timings with load and first run of a new process (`Target.cold_start`), if the target has them."""
    facts = timings.facts
    cold = None if facts.simulated else target.cold_start(artifact, threads=facts.threads)
    return replace(timings, **asdict(cold)) if cold else timings


def _target(artifact: Artifact, target: Target | None) -> Target:
    if target is None:
        return default_for(artifact.format)
    if artifact.format not in target.formats:
        raise UsageProblem(
            f"{target.name} does not run {artifact.path.name}; it takes {', '.join(sorted(target.formats))}"
        )
    return target

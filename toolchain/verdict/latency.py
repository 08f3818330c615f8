"""Latency of several artifacts, measured in turns so that a drifting machine is unfair to none of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from targets.artifact import Artifact, adopt, describe, explained, load_artifact
from targets.catalog import TARGETS, default_for
from targets.cold import cold_start
from targets.errors import ArtifactError
from targets.preprocess import Preprocess
from targets.target import Session, Target, TimingPlan, Timings
from toolchain.errors import EvidenceError, UsageProblem
from toolchain.files import whole_file
from toolchain.progress import Progress, silent

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
RESAMPLES = 4000
MIN_ROUNDS = 3


def time_interleaved(
    sessions: Sequence[Session], plan: TimingPlan, *, rounds: int = 10, seed: int = 0, progress: Progress = silent
) -> list[Timings]:
    """Time every session in `rounds` blocks, the order of each round drawn by `seed`; one Timings a session, in order.

    The plan holds for the whole of a session: each block takes its share of `min_runs`, `min_seconds` and `max_runs`,
    and the warm-up anew, since another session had the caches. `Timings.blocks` says where each block starts.
    """
    if rounds < 1 or rounds > plan.max_runs:
        raise UsageProblem(f"cannot time in {rounds} rounds; give 1 to {plan.max_runs}")
    share = replace(
        plan,
        min_runs=math.ceil(plan.min_runs / rounds),
        max_runs=math.ceil(plan.max_runs / rounds),
        min_seconds=plan.min_seconds / rounds,
    )
    random = np.random.default_rng(seed)
    blocks: list[list[Timings]] = [[] for _ in sessions]
    for done in range(rounds):
        for index in random.permutation(len(sessions)):
            # Every block of a session keeps the inner loop that its first one found.
            inner = blocks[index][0].inner if blocks[index] else plan.inner
            blocks[index].append(sessions[index].time(replace(share, inner=inner)))
        progress("timing", done + 1, rounds)
    return [_joined(timings) for timings in blocks]


def _joined(blocks: list[Timings]) -> Timings:
    starts = np.cumsum([0, *(len(block.samples_ns) for block in blocks[:-1])])
    first, last = blocks[0], blocks[-1]
    ended = {"load_average_end": last.machine["load_average"]} if "load_average" in last.machine else {}
    return replace(
        first,
        samples_ns=np.concatenate([block.samples_ns for block in blocks]),
        blocks=tuple(int(start) for start in starts),
        machine=first.machine | ended,
    )


@dataclass(frozen=True)
class LatencyRatio:
    """How many times as long a candidate takes as the first artifact, with a 95 % interval.

    ratio: geometric mean over the rounds of the ratio of medians in that round, so that drift cancels. low, high:
    bootstrap over rounds (the samples within one are not independent), expanded for few rounds as in Hesterberg,
    "What Teachers Should Know About the Bootstrap" (2015). None below 3 rounds.
    """

    ratio: float
    low: float | None
    high: float | None
    rounds: int

    @classmethod
    def of(cls, candidate: Timings, base: Timings, *, seed: int = 0) -> LatencyRatio:
        """Compare two Timings of one `time_interleaved`; raises EvidenceError on ones that are not."""
        if len(candidate.blocks) != len(base.blocks) or candidate.batch != base.batch:
            raise EvidenceError("these timings were not taken in the same rounds; time both in one run")
        logs = np.log(_medians(candidate)) - np.log(_medians(base))
        rounds = len(logs)
        if rounds < MIN_ROUNDS:
            return cls(math.exp(logs.mean()), None, None, rounds)
        drawn = np.random.default_rng(seed).integers(0, rounds, (RESAMPLES, rounds))
        low, high = np.quantile(logs[drawn].mean(axis=1), _expanded_tails(rounds))
        return cls(math.exp(logs.mean()), math.exp(low), math.exp(high), rounds)


def _medians(timings: Timings) -> NDArray[np.float64]:
    medians = np.array([np.median(block) for block in np.split(timings.samples_ns, timings.blocks[1:])])
    if not (medians > 0).all():
        raise EvidenceError("a block of timings is empty or takes no time; time it again")
    return medians


def _expanded_tails(rounds: int, confidence: float = 0.95) -> list[float]:
    """Return the quantiles that give a bootstrap of few rounds its nominal coverage."""
    from scipy.special import stdtrit

    t = float(stdtrit(rounds - 1, (1 + confidence) / 2)) * math.sqrt(rounds / (rounds - 1))
    tail = NormalDist().cdf(-t)
    return [tail, 1 - tail]


@dataclass(frozen=True, eq=False)
class ProfileRow:
    """One artifact's latency; `ratio` is to the first row's, None for the first itself."""

    artifact: Artifact
    timings: Timings
    ratio: LatencyRatio | None

    def percentiles(self) -> dict[str, float | None]:
        """Return nanoseconds by name (p50 ... p99.9), None where the samples cannot carry it."""
        return {f"p{q:g}": self.timings.percentile(q) for q in PERCENTILES}

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the samples as JSON types; times in nanoseconds."""
        timings = self.timings
        return {
            "artifact": self.artifact.path.name,
            "sha256": self.artifact.sha256,
            "bytes": self.artifact.size,
            "facts": asdict(timings.facts),
            "batch": timings.batch,
            "samples": len(timings.samples_ns),
            "inner": timings.inner,
            "warmup": timings.warmup,
            "load_ns": timings.load_ns,
            "first_run_ns": timings.first_run_ns,
            "percentiles_ns": self.percentiles(),
            "ratio": None if self.ratio is None else asdict(self.ratio),
            "machine": timings.machine,
        }


@dataclass(frozen=True, eq=False)
class Profile:
    """What several artifacts cost in the same minutes on the same machine, the first being the one compared with."""

    rows: tuple[ProfileRow, ...]
    plan: TimingPlan
    rounds: int
    seed: int
    cold: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the samples as JSON types."""
        rows = [row.to_dict() for row in self.rows]
        return {"rows": rows, "plan": asdict(self.plan), "rounds": self.rounds, "seed": self.seed, "cold": self.cold}

    def save_samples(self, path: Path, *, force: bool = False) -> None:
        """Write the raw nanoseconds as `.npz`: `samples_ns_K` and `blocks_K` of row K, and `meta`, the rest as JSON."""
        import json

        arrays: dict[str, Any] = {"meta": np.array(json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False))}
        for k, row in enumerate(self.rows):
            arrays |= {f"samples_ns_{k}": row.timings.samples_ns, f"blocks_{k}": np.array(row.timings.blocks)}
        with whole_file(path, force=force) as part, part.open("wb") as stream:
            np.savez_compressed(stream, **arrays)


def profile(
    artifacts: Sequence[Artifact],
    *,
    target: Target | None = None,
    threads: int = 1,
    plan: TimingPlan | None = None,
    rounds: int = 10,
    seed: int = 0,
    cold: bool = False,
    progress: Progress = silent,
) -> Profile:
    """Open every artifact on `target` (by default the one of its format), time them in turns, compare with the first.

    cold: take load and first run from a fresh process each (`targets.cold`; half a second), as `glyphpress profile`
    does; otherwise they are of this process, where the first artifact also pays for starting the runtime.
    Raises UsageProblem without artifacts or for a target that does not run a format, and what opening raises.
    """
    plan = plan or TimingPlan()
    if not artifacts:
        raise UsageProblem("nothing to profile; name at least one artifact")
    with ExitStack() as stack:
        sessions = [
            stack.enter_context(_place(artifact, target).open(artifact, threads=threads)) for artifact in artifacts
        ]
        timings = time_interleaved(sessions, plan, rounds=rounds, seed=seed, progress=progress)
    if cold:
        timings = [_started_cold(own, artifact) for own, artifact in zip(timings, artifacts, strict=True)]
    rows = tuple(
        ProfileRow(artifact, own, LatencyRatio.of(own, timings[0], seed=seed) if k else None)
        for k, (artifact, own) in enumerate(zip(artifacts, timings, strict=True))
    )
    return Profile(rows, plan, rounds, seed, cold)


def timeable(path: Path) -> Artifact:
    """Return the artifact, or a user's own file with its classes merely numbered, since times need no names.

    Raises ArtifactError when the file cannot be read, or does not say how wide its answer is.
    """
    if explained(path):
        return load_artifact(path)
    _, outputs = describe(path)
    width = outputs[0].shape[-1] if outputs[0].shape else -1
    if width < 1:
        raise ArtifactError(f"{path}: does not say how many classes it answers; export it with a fixed output width")
    return adopt(path, preprocess=Preprocess(), classes=tuple(map(str, range(width))))


def _started_cold(timings: Timings, artifact: Artifact) -> Timings:
    facts = timings.facts
    # A script loads nothing, and a target that is not in the catalog cannot be found by another process.
    if facts.simulated or facts.target not in TARGETS:
        return timings
    return replace(timings, **asdict(cold_start(artifact, facts.target, threads=facts.threads)))


def _place(artifact: Artifact, target: Target | None) -> Target:
    if target is None:
        return default_for(artifact.format)
    if artifact.format not in target.formats:
        raise UsageProblem(
            f"{target.name} does not run {artifact.path.name}; it takes {', '.join(sorted(target.formats))}"
        )
    return target

"""Timings of a run: their raw nanoseconds in an `.npz`, the bounds of a percentile, and the ratio to another file's.

`profile -o` and a press write the `.npz`. `meta` is JSON: `schema` (SCHEMA), and `rows`, one for each file on each
target: `artifact`, `sha256`, `facts`, `machine`, `batch`, `inner`, `warmup`, `load_ns`, `first_run_ns`, and other keys
that are not read. A row K that was timed has three arrays of int64: `samples_ns_K` [N] in order, `blocks_K` (where each
round starts in them), and `interrupted_K` [M, 2] (which sample was interrupted, for how many nanoseconds).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from targets.errors import RunFailed
from targets.host.text import json_value
from targets.session import Timings
from toolchain.core.errors import EvidenceError
from toolchain.core.files import refuse_other
from toolchain.evaluation.evaluate import UNREADABLE, save_npz, unpacked
from toolchain.stats.bootstrap import MIN_ROUNDS, bounds, resampled, trimmed_mean

SCHEMA = "glyphpress/timings/1"
MOST_ROUNDS = 1000
"""No run has more; the bootstrap holds thousands of numbers for each."""
_META_FIELDS = ("facts", "machine", "batch", "inner", "warmup", "load_ns", "first_run_ns")


@dataclass(frozen=True, eq=False)
class StoredRow:
    """One file that was timed. artifact: its name."""

    artifact: str
    timings: Timings

    @property
    def key(self) -> tuple[str, str]:
        """Identifies the same file in another run: its name and its target."""
        return self.artifact, self.timings.facts.target

    @property
    def machine(self) -> str:
        """The board or processor that it ran on."""
        state = self.timings.machine
        return state.get("board") or state.get("cpu") or "an unknown machine"


@dataclass(frozen=True, eq=False)
class StoredRun:
    """The timed rows of an `.npz`. name: its path as given. untimed: a line for each other row."""

    name: str
    rows: tuple[StoredRow, ...]
    untimed: tuple[str, ...] = ()


def save_timings(path: Path, meta: dict[str, Any], timings: Sequence[Timings | None], *, force: bool = False) -> None:
    """Write timings, one for each of `meta["rows"]` that has them; raises UsageProblem over an existing file."""
    arrays: dict[str, NDArray[np.int64]] = {}
    for k, row in enumerate(timings):
        if row:
            arrays |= {f"samples_ns_{k}": row.samples_ns, f"blocks_{k}": np.array(row.blocks, np.int64)}
            arrays[f"interrupted_{k}"] = np.array(row.interrupted, np.int64).reshape(-1, 2)
    save_npz(path, {"schema": SCHEMA} | meta, arrays, force=force)


def load_timings(path: Path) -> StoredRun:
    """Read what `save_timings` wrote; raises EvidenceError on anything else.

    Files from before a schema and interruptions were stored are read too.
    """
    make = "`glyphpress profile ARTIFACT -o FILE.npz` makes one"
    if not path.is_file():
        raise EvidenceError(f"{path}: no such file; {make}")
    refuse_other(path, SCHEMA)
    try:
        stored = unpacked(path.read_bytes())
        meta = json_value(str(stored["meta"]))
        if meta.get("schema", SCHEMA) != SCHEMA:
            raise ValueError(f"expected {SCHEMA}")
        rows = [_row(stored, k, row) for k, row in enumerate(meta["rows"]) if f"samples_ns_{k}" in stored]
        untimed = tuple(_untimed(row) for k, row in enumerate(meta["rows"]) if f"samples_ns_{k}" not in stored)
        if not rows:
            raise ValueError(f"nothing in it was timed{': ' * bool(untimed)}{', '.join(untimed)}")
    except (*UNREADABLE, RunFailed, IndexError, OverflowError) as error:
        raise EvidenceError(f"{path}: not stored timings ({error}); {make}") from error
    return StoredRun(str(path), tuple(rows), untimed)


def _untimed(row: dict[str, Any]) -> str:
    where = f"{row['artifact']} on {row.get('target', 'a target without a name')}"
    if row.get("instructions"):
        return f"{where} is emulated, so it has instruction counts and no times"
    return f"{where} was not timed"


def _row(stored: dict[str, Any], k: int, row: dict[str, Any]) -> StoredRow:
    arrays = {
        "samples_ns": _integers(stored[f"samples_ns_{k}"], 1),
        "blocks": _integers(stored[f"blocks_{k}"], 1),
        "interrupted": _integers(stored.get(f"interrupted_{k}", np.empty((0, 2), np.int64)), 2),
    }
    if len(arrays["blocks"]) > MOST_ROUNDS or arrays["samples_ns"].min(initial=1) < 1:
        raise ValueError("it has more rounds than any run has, or samples of no duration")
    lists = {name: array.tolist() for name, array in arrays.items()}
    timings = Timings.from_dict({name: row[name] for name in _META_FIELDS} | lists | {"artifact_sha256": row["sha256"]})
    state = timings.machine
    names = [row["artifact"], state.get("board", ""), state.get("cpu", "")]
    if not all(isinstance(name, str) for name in names) or min(timings.batch, timings.inner) < 1:
        raise TypeError("a name is not a string, or a batch is smaller than 1")
    # Computed here once, so that an invalid machine state is refused when the file is read.
    _ = timings.taints, timings.busy_cores
    return StoredRow(row["artifact"], timings)


def _integers(array: Any, axes: int) -> NDArray[np.int64]:
    if array.dtype != np.int64 or array.ndim != axes:
        raise ValueError(f"an array is {array.dtype} {list(array.shape)}")
    return np.asarray(array, np.int64)


INTERVAL = 0.975
"""Confidence of each bound of the 95 % interval in tables."""
GRID = 1000
SLOWER = 1.02
"""A larger ratio counts as slower. Smaller ones do not matter, and two sessions of one file stay below it."""


@dataclass(frozen=True)
class LatencyRatio:
    """How many times as long a candidate takes as the first artifact, with an interval, by default of 95 %.

    ratio: geometric mean over the rounds of the ratio of a percentile in that round, so that drift cancels; without the
    fifth of the rounds at either end, so that a burst of other work has little effect. low, high: its bounds by a
    bootstrap over rounds, None below 3 of them. rounds: number of rounds, or of groups of rounds where a single round
    has too few samples for the percentile.
    """

    ratio: float
    low: float | None
    high: float | None
    rounds: int

    @property
    def slower(self) -> bool:
        """Whether the candidate is shown to take longer by more than 2 %."""
        return self.low is not None and self.low > SLOWER

    @classmethod
    def of(
        cls, candidate: Timings, base: Timings, *, q: float = 50.0, confidence: float = INTERVAL, seed: int = 0
    ) -> LatencyRatio | None:
        """Compare two Timings of one `time_interleaved`, or return None where either cannot carry the percentile.

        confidence: of each bound, one-sided. Raises EvidenceError on timings that were not taken together.
        """
        if len(candidate.blocks) != len(base.blocks) or candidate.batch != base.batch:
            raise EvidenceError("these timings were not taken in the same rounds; time both in one run")
        groups = _groups(candidate, base, q)
        logs = np.log(_percentiles(candidate, q, groups)) - np.log(_percentiles(base, q, groups))
        if candidate.percentile(q) is None or base.percentile(q) is None:
            return None
        return cls._of_logs(_mean(logs), trimmed_mean(logs, resampled(len(logs), seed)), len(logs), confidence)

    def widened(self, half: float) -> LatencyRatio:
        """Return the ratio with an interval at least as wide as `half` on each side, of the logarithm."""
        low, high = self.ratio * math.exp(-half), self.ratio * math.exp(half)
        return replace(self, low=low if self.low is None else min(low, self.low), high=max(high, self.high or high))

    @classmethod
    def apart(cls, candidate: Timings, base: Timings) -> LatencyRatio | None:
        """Compare the medians of two runs that were not taken together, or return None where either has no median.

        Their rounds are not paired, so each run is resampled by itself. The interval covers the differences between
        the rounds of a run; a change of the machine between the runs counts as a difference of the files.
        """
        if candidate.percentile(50) is None or base.percentile(50) is None:
            return None
        logs = [np.log([float(np.median(block)) for block in _blocks(timings)]) for timings in (candidate, base)]
        candidate_draws, base_draws = (trimmed_mean(log, resampled(len(log), k)) for k, log in enumerate(logs))
        mean, rounds = _mean(logs[0]) - _mean(logs[1]), min(map(len, logs))
        return cls._of_logs(mean, candidate_draws - base_draws, rounds, INTERVAL)

    @classmethod
    def _of_logs(cls, mean: float, draws: NDArray[np.float64], rounds: int, confidence: float) -> LatencyRatio:
        if rounds < MIN_ROUNDS:
            return cls(math.exp(mean), None, None, rounds)
        low, high = bounds(draws, mean, rounds, confidence)
        return cls(math.exp(mean), math.exp(low), math.exp(high), rounds)


def typical_ns(timings: Timings) -> float | None:
    """Return the geometric mean of the medians of the rounds without the fifth at either end, in nanoseconds.

    None where the samples have no median. It is what `LatencyRatio.apart` compares.
    """
    if timings.percentile(50) is None:
        return None
    return math.exp(_mean(np.log([float(np.median(block)) for block in _blocks(timings)])))


def _mean(logs: NDArray[np.float64]) -> float:
    """Return the mean without the fifth of the values at either end."""
    return float(trimmed_mean(logs, np.ones((1, len(logs))))[0])


def not_quiet(taints: Iterable[str]) -> list[str]:
    """Return the line that marks times from a machine that was not quiet, the same everywhere; none if it was."""
    reasons = "; ".join(taints)
    return [f"NOT QUIET: {reasons}; latencies may be too long"] if reasons else []


def samples_for(q: float) -> int:
    """Return how many single inferences carry a percentile: ten beyond it, for the median ten on each side."""
    return math.ceil(round(1000 / min(q, 100 - q), 6))


def latency_bounds(
    timings: Timings, q: float, *, confidence: float = INTERVAL, seed: int = 0
) -> tuple[float, float] | None:
    """Return the lower and upper bound, each one-sided at `confidence`, of `timings.percentile(q)` in nanoseconds.

    A bootstrap over rounds of the percentile of all samples together, so that slow periods keep their share. The
    bounds hold for the state of the machine in these rounds only: in simulations in which rounds differ by 5 %, the
    P95 of endless rounds was above the upper bound at 99 % in 7 of 100 runs of 20 rounds, and never below the lower
    one; with one round in ten far slower, far more often above. None below 3 rounds, and where the samples cannot
    carry the percentile. Raises EvidenceError on samples of no duration.
    """
    blocks, point = _blocks(timings), timings.percentile(q)
    rounds = len(blocks)
    if point is None or rounds < MIN_ROUNDS:
        return None
    # A grid of values is enough, since the percentile of a resample is only looked up among them.
    ranks = np.linspace(0, len(timings.worked_ns) - 1, min(GRID, len(timings.worked_ns))).round().astype(int)
    values = np.sort(timings.worked_ns)[ranks]
    below = np.array([np.searchsorted(np.sort(block), values, side="right") for block in blocks], np.float64)
    weights = resampled(rounds, seed)
    counts = weights @ np.array([len(block) for block in blocks], np.float64)
    percentiles = values[((weights @ below) >= counts[:, None] * q / 100).argmax(axis=1)]
    low, high = bounds(np.log(percentiles), math.log(point), rounds, confidence)
    return math.exp(low), math.exp(high)


def _blocks(timings: Timings) -> list[NDArray[np.int64]]:
    blocks = np.split(timings.worked_ns, timings.blocks[1:])
    if min(map(len, blocks)) == 0 or timings.worked_ns.min() <= 0:
        raise EvidenceError("a block of timings is empty or has no duration; time it again")
    return blocks


def _groups(candidate: Timings, base: Timings, q: float) -> list[NDArray[np.int64]]:
    """Return groups of rounds, as indices: single rounds, or as few as carry a tail percentile.

    A median of few samples is not biased, so its rounds stay single.
    """
    rounds = np.arange(len(base.blocks))
    least = min(len(block) for timings in (candidate, base) for block in _blocks(timings))
    together = 1 if q == 50 else math.ceil(samples_for(q) / least)
    return np.array_split(rounds, max(len(rounds) // together, 1))


def _percentiles(timings: Timings, q: float, groups: list[NDArray[np.int64]]) -> NDArray[np.float64]:
    """Return the percentile of each group of rounds, nanoseconds [groups]."""
    blocks = _blocks(timings)
    return np.array([np.percentile(np.concatenate([blocks[k] for k in group]), q) for group in groups])

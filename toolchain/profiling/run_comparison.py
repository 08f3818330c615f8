"""Two saved profiles: how many times as long each file took in the later one, and how sure that is.

The runs were not taken in turns, so whatever differed between the two occasions (other work, heat, the place of a
session in memory) looks like a difference of the files. How much that is can only be seen where a file was run
repeatedly without a change: of such repeats in the folders of the two runs the standard deviation is taken, and the
interval is at least as wide as the t distribution makes it. Where the two files, their runtimes or their folders
differ, the repeats of each side are averaged, so that the interval becomes narrower with more of them. Without repeats
the interval is that of the rounds of the two runs alone, and the remarks say so.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from targets.session import Timings, taints_of
from toolchain.core.errors import EvidenceError, GateFailed, GateInconclusive
from toolchain.core.quantities import counted, percent_text
from toolchain.evaluation.timings import SLOWER, LatencyRatio, not_quiet, typical_ns
from toolchain.profiling.busy_runs import Disturbance, is_explained
from toolchain.profiling.latency import percentiles
from toolchain.profiling.saved import SavedProfile, SavedRow
from toolchain.stats.decision import Outcome

MIN_FREEDOM = 2
"""Fewer degrees of freedom say nothing of a standard deviation: with one the interval is thirteen of them wide."""
CONFIDENCE = 0.975
"""Of each bound."""

_Runs = Sequence[SavedProfile]


@dataclass(frozen=True)
class RunNoise:
    """How much runs of an unchanged file differ. deviation: of the logarithm of its typical time; runs: they are of."""

    deviation: float
    freedom: int
    runs: int

    def half(self, before: int = 1, after: int = 1) -> float:
        """Half the width of the 95 % interval of the logarithm of a ratio of means of so many runs."""
        from scipy.special import stdtrit

        return float(stdtrit(self.freedom, CONFIDENCE)) * math.sqrt(1 / before + 1 / after) * self.deviation


@dataclass(frozen=True, eq=False)
class RowComparison:
    """A file of the later run and the same file, or the only one on that target, in the earlier run.

    ratio: of typical times, its interval by `noise` if that is known; None where either has no latency. repeats: what
    disturbed the runs before that `noise` is of. runs_before, runs_after: how many runs of each the ratio is of: the
    two alone, or the mean of quiet repeats.
    """

    base: SavedRow
    row: SavedRow
    ratio: LatencyRatio | None
    noise: RunNoise | None
    instructions_ratio: float | None = None
    repeats: tuple[Disturbance, ...] = ()
    runs_before: int = 1
    runs_after: int = 1

    @property
    def taints(self) -> tuple[str, ...]:
        """The reasons why a machine was not quiet in either run."""
        return taints_of(row.timings for row in (self.base, self.row) if row.timings)

    @property
    def outcome(self) -> Outcome:
        """FAIL if it is shown to be more than 2 % slower, PASS if it is shown not to be; INCONCLUSIVE otherwise.

        Where a machine was not quiet, and other work can explain it, a slower file is INCONCLUSIVE too.
        """
        if self.instructions_ratio is not None:
            return Outcome.FAIL if self.instructions_ratio > SLOWER else Outcome.PASS
        if self.ratio is None or self.ratio.low is None or self.ratio.high is None:
            return Outcome.INCONCLUSIVE
        if self.ratio.high <= SLOWER:
            return Outcome.PASS
        if not self.ratio.slower:
            return Outcome.INCONCLUSIVE
        if not self.taints:
            return Outcome.FAIL
        assert self.row.timings, "it has a ratio"
        explained = not self.noise or is_explained(self.ratio.low, self.repeats, [Disturbance.of(self.row.timings)])
        return Outcome.INCONCLUSIVE if explained else Outcome.FAIL

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types; times in nanoseconds."""
        return {
            "artifact": self.row.artifact,
            "target": self.row.target,
            "base_artifact": self.base.artifact,
            "same_content": self.row.sha256 == self.base.sha256,
            "base_percentiles_ns": percentiles(self.base.timed),
            "percentiles_ns": percentiles(self.row.timed),
            "ratio": asdict(self.ratio) if self.ratio else None,
            "noise": asdict(self.noise) if self.noise else None,
            "instructions_ratio": self.instructions_ratio,
            "runs_before": self.runs_before,
            "runs_after": self.runs_after,
            "outcome": str(self.outcome),
            "taints": list(self.taints),
        }


@dataclass(frozen=True, eq=False)
class RunComparison:
    """Two runs and their files, and what else differs between them."""

    base: SavedProfile
    run: SavedProfile
    rows: tuple[RowComparison, ...]
    remarks: tuple[str, ...]
    lacking: tuple[str, ...]

    @property
    def outcome(self) -> Outcome:
        """The worst outcome of a file; INCONCLUSIVE too where the later run lacks a file of the earlier one."""
        outcomes = {row.outcome for row in self.rows} | ({Outcome.INCONCLUSIVE} if self.lacking else set())
        return next(each for each in (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS) if each in outcomes)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        runs = {name: {"path": run.name, "created": run.created, "commit": run.commit} for name, run in self._runs()}
        rows = [row.to_dict() for row in self.rows]
        return runs | {"rows": rows, "outcome": str(self.outcome), "notes": [*self.lacking, *self.remarks]}

    def _runs(self) -> Iterator[tuple[str, SavedProfile]]:
        yield "base", self.base
        yield "run", self.run


def compare_runs(
    base: SavedProfile, run: SavedProfile, others: Iterable[SavedProfile] = (), *, anyway: bool = False
) -> RunComparison:
    """Compare the files of two runs. others: runs that show how much runs of an unchanged file differ.

    anyway: compare runs of unlike machines too. Raises EvidenceError for those without it, for other threads or another
    batch, and where the runs share no file.
    """
    pairs = list(_pairs(base, run))
    if not pairs:
        raise EvidenceError(f"{run.name} and {base.name} share no file on one target; give runs of the same files")
    unlike = [text for pair in pairs for text in _unlike_machines(base, run, *pair)]
    if unlike and not anyway:
        raise EvidenceError(f"{run.name} and {base.name} ran on unlike machines: {unlike[0]}; --anyway compares them")
    for pair in pairs:
        _refuse_other_settings(base, run, *pair)
    known = tuple(others)
    rows = tuple(_compared(before, after, (base, run), known) for before, after in pairs)
    compared = {before.key for before, _ in pairs}
    lacking = tuple(f"{run.name} lacks {row.artifact} on {row.target}" for row in base.rows if row.key not in compared)
    remarks = dict.fromkeys([*unlike, *_remarks(rows)])
    return RunComparison(base, run, rows, tuple(remarks), lacking)


def require_not_slower(compared: RunComparison) -> None:
    """Raise GateFailed where a file is shown to be slower, GateInconclusive where that cannot be said of one."""
    slower = [row for row in compared.rows if row.outcome is Outcome.FAIL]
    if slower:
        raise GateFailed(f"slower: {', '.join(f'{row.row.artifact} on {row.row.target}' for row in slower)}")
    unknown = [f"{row.row.artifact} on {row.row.target}" for row in compared.rows if row.outcome is not Outcome.PASS]
    if unknown or compared.lacking:
        why = "; ".join([*(f"it is not known whether {name} is slower" for name in unknown), *compared.lacking])
        raise GateInconclusive(f"{why}; save more runs of each, on a quiet machine, for longer")


def _pairs(base: SavedProfile, run: SavedProfile) -> Iterator[tuple[SavedRow, SavedRow]]:
    """Yield rows of one name on one target; without any, the only rows of both runs on a target."""
    first = {row.key: row for row in reversed(base.rows) if row.facts}
    measured = [row for row in run.rows if row.facts]
    shared = [(first[row.key], row) for row in measured if row.key in first]
    yield from shared
    if (
        not shared
        and len(first) == len(measured) == 1
        and {row.target for row in first.values()} == {measured[0].target}
    ):
        yield next(iter(first.values())), measured[0]


def _unlike_machines(base: SavedProfile, run: SavedProfile, before: SavedRow, after: SavedRow) -> Iterator[str]:
    if before.instructions and after.instructions:
        return  # they do not depend on the machine that emulates the processor
    old, new = base.machine_of(before), run.machine_of(after)
    for name in dict.fromkeys([*old, *new]):
        if old.get(name) != new.get(name):
            yield f"{name} {_value(new.get(name))}, not {_value(old.get(name))}"


def _value(value: object) -> str:
    return "unknown" if value is None else " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _refuse_other_settings(base: SavedProfile, run: SavedProfile, before: SavedRow, after: SavedRow) -> None:
    assert before.facts, "it was measured"
    assert after.facts, "it was measured"
    for name, old, new in (
        ("threads", before.facts.threads, after.facts.threads),
        ("batch", before.batch, after.batch),
    ):
        if old != new:
            raise EvidenceError(
                f"{after.artifact} was measured with {name} {new} in {run.name} and {old} in {base.name}; these cannot "
                "be compared; measure both with the same settings"
            )


def _compared(
    before: SavedRow, after: SavedRow, ends: tuple[SavedProfile, SavedProfile], others: _Runs
) -> RowComparison:
    if before.timed and after.timed:
        repeats = [_repeats(row, run, others) for row, run in zip((before, after), ends, strict=True)]
        known, kind = [ends[0], *others], repeats[1].kind
        apart = repeats[0].kind != kind
        if not apart:
            # No run can be said to be of one side, and a slower one must not hide in the noise.
            repeats = [replace(side, logs=side.logs[:1]) for side in repeats]
        else:
            known.append(ends[1])
        groups = _repeated(after, ends[1], known)
        noise = _noise(groups.values())
        earlier = [runs for each, runs in groups.items() if not (apart and each == kind)]
        disturbed = tuple(Disturbance.of(timings) for timings in chain.from_iterable(earlier))
        ratio = LatencyRatio.apart(after.timed, before.timed)
        if not (ratio and noise):
            return RowComparison(before, after, ratio, noise, repeats=disturbed)
        counts = [len(side.logs) for side in repeats]
        ratio = _with_noise(ratio, noise, *repeats)
        return RowComparison(before, after, ratio, noise, None, disturbed, *counts)
    if before.instructions and after.instructions:
        return RowComparison(before, after, None, None, after.instructions.median / before.instructions.median)
    return RowComparison(before, after, None, None)


@dataclass(frozen=True)
class _Repeats:
    """Logarithms of the typical times of a run of a file, the first, and of its quiet repeats in the same folder."""

    kind: tuple[object, ...]
    logs: tuple[float, ...]


def _repeats(row: SavedRow, run: SavedProfile, others: _Runs) -> _Repeats:
    kind = _kind(row, run)
    logs = [
        log
        for other in (run, *others)
        for each in other.rows
        if (each is row or (_kind(each, other) == kind and each.timings and not each.timings.taints))
        and (log := _log(each))
    ]
    return _Repeats(kind, tuple(logs))


def _with_noise(ratio: LatencyRatio, noise: RunNoise, before: _Repeats, after: _Repeats) -> LatencyRatio:
    """Return the ratio of the means of both sides, with the interval by the noise of runs."""
    counts = len(before.logs), len(after.logs)
    half = noise.half(*counts)
    if max(counts) == 1:
        return ratio.widened(half)
    log = float(np.mean(after.logs) - np.mean(before.logs))
    return replace(ratio, ratio=math.exp(log), low=math.exp(log - half), high=math.exp(log + half))


def _log(row: SavedRow) -> float | None:
    typical = typical_ns(row.timed) if row.timed else None
    return math.log(typical) if typical else None


def _kind(row: SavedRow, run: SavedProfile) -> tuple[object, ...]:
    """Return what runs have in common that are repeats: file, settings, runtime, machine and folder."""
    version = row.facts.version if row.facts else ""
    threads = row.facts.threads if row.facts else 0
    machine = json.dumps(run.machine_of(row), sort_keys=True)
    return *row.key, row.sha256, row.batch, threads, version, machine, run.path.parent.resolve() if run.path else None


def _repeated(row: SavedRow, run: SavedProfile, known: _Runs) -> dict[tuple[object, ...], list[Timings]]:
    """Return the repeated runs of a file of that name, on that target and a machine like that of `row`.

    Runs of one content in one version of the runtime and one folder are repeats.
    """
    groups: dict[tuple[object, ...], list[Timings]] = defaultdict(list)
    for other in known:
        for each in other.rows:
            same = each.key == row.key and other.machine_of(each) == run.machine_of(row)
            if same and each.timed and typical_ns(each.timed):
                groups[_kind(each, other)].append(each.timed)
    return {kind: timings for kind, timings in groups.items() if len(timings) > 1}


def _noise(repeats: Iterable[Sequence[Timings]]) -> RunNoise | None:
    """Return how much repeated runs differ, None where there are too few."""
    repeated = [np.log([typical_ns(each) or math.nan for each in timings]) for timings in repeats]
    freedom = sum(len(logs) - 1 for logs in repeated)
    if freedom < MIN_FREEDOM:
        return None
    squares = sum(float(((logs - logs.mean()) ** 2).sum()) for logs in repeated)
    return RunNoise(math.sqrt(squares / freedom), freedom, freedom + len(repeated))


def _remarks(rows: Sequence[RowComparison]) -> Iterator[str]:
    """Yield how sure the ratios are, and what else differs."""
    if noise := next((row.noise for row in rows if row.noise), None):
        yield (
            f"interval: 95 %, by how much {counted(noise.runs, 'run')} of unchanged files in these folders differ "
            f"({percent_text(math.expm1(noise.deviation), 1)}), and by the rounds of the two runs where that is more"
        )
    for row in rows:
        if max(row.runs_before, row.runs_after) > 1:
            yield (
                f"ratio of {row.row.artifact} on {row.row.target}: of the mean typical times of "
                f"{counted(row.runs_before, 'run')} before and {row.runs_after} after in their folders, not of one p50"
            )
    if any(row.ratio and not row.noise for row in rows):
        yield (
            "interval: 95 %, by the rounds of the two runs alone; what changed on the machine between them is not in "
            "it: save each file three times or more, unchanged, and it will be"
        )
    for row in rows:
        before, after = row.base, row.row
        if before.artifact != after.artifact:
            yield f"{after.artifact} is compared with {before.artifact}, the only file of the earlier run"
        if before.sha256 == after.sha256:
            yield f"{after.artifact} has the same content in both runs"
        if before.facts and after.facts and before.facts.version != after.facts.version:
            yield f"{after.facts.runtime} {after.facts.version}, not {before.facts.version}"
    yield from not_quiet(taints_of(each.timings for row in rows for each in (row.base, row.row) if each.timings))

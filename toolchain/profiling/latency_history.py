"""The latency of files over many saved profiles: since which commit a file is slower, by how much, how surely.

A series holds the runs of one file with the same settings on one kind of machine, in order. Its levels are found by
`toolchain.stats.change_points`; a change is as large as the typical times of both levels differ. What drifts with the
hours of a day, or comes in waves, is no exchangeable noise, and raises more false alarms than `LEVEL` says.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any

from toolchain.core.errors import GateFailed, GateInconclusive, UsageProblem
from toolchain.core.quantities import counted
from toolchain.evaluation.timings import SLOWER, typical_ns
from toolchain.profiling.busy_runs import Disturbance, is_explained
from toolchain.profiling.saved import SHORT, SavedProfile, instant
from toolchain.stats.change_points import LEVEL, MIN_SEGMENT, Shift, change_points, shift
from toolchain.stats.decision import Outcome

ENOUGH = 2 * MIN_SEGMENT
"""Fewest runs that can show a change."""


@dataclass(frozen=True)
class Point:
    """One run of a file. ns: its typical time (`typical_ns`). quiet: whether the machine was, else why not."""

    run: str
    created: str
    commit: str
    ns: float
    quiet: bool
    sha256: str
    runtime: str
    disturbance: Disturbance

    @property
    def name(self) -> str:
        """The commit in the length that people read, or when it was run where that is not known."""
        return self.commit[:SHORT] or self.created


@dataclass(frozen=True)
class Ratio:
    """How many times as long a level takes as another one, with a 95 % interval."""

    ratio: float
    low: float
    high: float

    @classmethod
    def of(cls, moved: Shift) -> Ratio:
        """Return the ratio of which `moved` is the logarithm."""
        bounds = (-math.inf if moved.low is None else moved.low, math.inf if moved.high is None else moved.high)
        return cls(math.exp(moved.median), math.exp(bounds[0]), math.exp(bounds[1]))

    @property
    def slower(self) -> bool:
        """Whether it is shown to be more than 2 % slower."""
        return self.low > SLOWER

    @property
    def faster(self) -> bool:
        """Whether it is shown to be more than 2 % faster."""
        return self.high < 1 / SLOWER


@dataclass(frozen=True)
class Change:
    """A new level. index: of its first point. runs_before, runs_after: in the levels on both sides.

    since: the ratio of the newest level to the level before. standing: whether it is a slowdown that lasts until now.
    sure: whether the quiet runs alone show that, or other work does not explain it. reasons: what else changed there.
    """

    index: int
    size: Ratio
    runs_before: int
    runs_after: int
    since: Ratio
    standing: bool
    sure: bool
    reasons: tuple[str, ...]

    @property
    def kind(self) -> str:
        """`slower`, `faster`, or `small` where the change is not shown to be more than 2 %."""
        return "slower" if self.size.slower else "faster" if self.size.faster else "small"


@dataclass(frozen=True)
class Series:
    """The runs of one file, and the changes of their level. current: whether the newest run of all is among them."""

    artifact: str
    target: str
    threads: int
    batch: int
    machine: dict[str, Any] = field(hash=False)
    points: tuple[Point, ...]
    changes: tuple[Change, ...] = ()
    current: bool = True

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.artifact} on {self.target}"

    @property
    def outcome(self) -> Outcome:
        """FAIL if it is slower since a commit; INCONCLUSIVE if only runs that were not quiet say so, or too few."""
        standing = [change for change in self.changes if change.standing]
        if any(change.sure for change in standing):
            return Outcome.FAIL
        return Outcome.INCONCLUSIVE if standing or len(self.points) < ENOUGH else Outcome.PASS

    def edges(self) -> list[int]:
        """Return where levels begin, and the number of points."""
        return [0, *(change.index for change in self.changes), len(self.points)]

    def sentences(self) -> Iterator[str]:
        """Yield what the series shows, in words."""
        if len(self.points) < ENOUGH:
            yield f"{counted(len(self.points), 'run')} cannot show a change; it takes {ENOUGH}"
            return
        standing = [change for change in self.changes if change.standing]
        for change in standing:
            size = change.since
            doubt = "" if change.sure else "; NOT QUIET: the quiet runs alone do not show it"
            yield (
                f"slower since {self.points[change.index].name}: {size.ratio:.2f} [{size.low:.2f}, {size.high:.2f}] "
                f"times as long, {counted(change.runs_before, 'run')} before{doubt}"
            )
            yield from change.reasons
        if not standing:
            yield "not slower than before" if self.changes else f"no change in {counted(len(self.points), 'run')}"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types; times in nanoseconds."""
        changes = [
            asdict(change) | {"kind": change.kind, "commit": self.points[change.index].commit}
            for change in self.changes
        ]
        return asdict(self) | {"changes": changes, "outcome": str(self.outcome), "said": list(self.sentences())}


@dataclass(frozen=True)
class LatencyHistory:
    """All series of a folder."""

    series: tuple[Series, ...]

    @property
    def outcome(self) -> Outcome:
        """The worst outcome of the series of the newest run."""
        outcomes = {series.outcome for series in self.series if series.current} or {Outcome.INCONCLUSIVE}
        return next(each for each in (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS) if each in outcomes)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        return {"series": [series.to_dict() for series in self.series], "outcome": str(self.outcome), "level": LEVEL}

    def require_not_slower(self) -> None:
        """Raise GateFailed where a file is slower since a commit, GateInconclusive where that cannot be said of one."""
        for outcome, error in ((Outcome.FAIL, GateFailed), (Outcome.INCONCLUSIVE, GateInconclusive)):
            blamed = [series for series in self.series if series.current and series.outcome is outcome]
            if blamed:
                raise error("; ".join(f"{series.name}: {next(series.sentences())}" for series in blamed))
        if self.outcome is not Outcome.PASS:
            raise GateInconclusive("the newest run timed nothing; profile a file on a device")


def latency_history(runs: Sequence[SavedProfile], *, since: str | None = None, seed: int = 0) -> LatencyHistory:
    """Return the series of runs that are in order, and their changes.

    since: the commit to begin with, or the first digits of its name. Raises UsageProblem where no run is of it.
    """
    runs = _from(runs, since) if since else runs
    newest = max(runs, key=lambda run: instant(run.created))
    points: dict[tuple[str, str, int, int, str], list[Point]] = defaultdict(list)
    current = set[tuple[str, str, int, int, str]]()
    for run in runs:
        for row in run.rows:
            ns = typical_ns(row.timed) if row.timed else None
            if row.timed is None or ns is None:
                continue
            facts, machine = row.timed.facts, json.dumps(run.machine_of(row), sort_keys=True)
            key = (row.artifact, row.target, facts.threads, row.timed.batch, machine)
            runtime = f"{facts.runtime} {facts.version}"
            quiet, disturbed = not row.timed.taints, Disturbance.of(row.timed)
            points[key].append(Point(run.name, run.created, run.commit, ns, quiet, row.sha256, runtime, disturbed))
            current |= {key} if run is newest else set()
    return LatencyHistory(
        tuple(
            _analysed(Series(*key[:4], json.loads(key[4]), tuple(series), current=key in current), seed)
            for key, series in points.items()
        )
    )


def _from(runs: Sequence[SavedProfile], since: str) -> Sequence[SavedProfile]:
    first = next((index for index, run in enumerate(runs) if run.commit.startswith(since)), None)
    if first is None:
        raise UsageProblem(f"no run is of commit {since}; `glyphpress profile list` shows their commits")
    return runs[first:]


def _analysed(series: Series, seed: int) -> Series:
    logs = [math.log(point.ns) for point in series.points]
    edges = [0, *change_points(logs, seed=seed), len(logs)]
    newest = range(edges[-2], edges[-1])
    changes = []
    for (start, index), (_, end) in pairwise(pairwise(edges)):
        before, after = range(start, index), range(index, end)
        size, since = (Ratio.of(_shift(logs, before, level)) for level in (after, newest))
        standing = size.slower and since.slower
        quiet = [[k for k in level if series.points[k].quiet] for level in (before, newest)]
        disturbed = ([series.points[k].disturbance for k in level] for level in (before, newest))
        shown = (all(quiet) and Ratio.of(_shift(logs, *quiet)).slower) or not is_explained(since.low, *disturbed)
        reasons = tuple(_reasons(series.points[index - 1], series.points[index]))
        changes.append(Change(index, size, len(before), len(after), since, standing, standing and shown, reasons))
    return replace(series, changes=tuple(changes))


def _shift(logs: Sequence[float], before: Sequence[int], after: Sequence[int]) -> Shift:
    return shift([logs[k] for k in before], [logs[k] for k in after])


def _reasons(before: Point, after: Point) -> Iterator[str]:
    """Yield what changed between two runs, or that nothing did which is known."""
    if before.commit and before.commit == after.commit:
        yield f"the run before is of commit {after.name} too, so no commit made the difference"
    if before.sha256 != after.sha256:
        yield "the content of the file changed there"
    if before.runtime != after.runtime:
        yield f"{after.runtime} there, not {before.runtime}"
    if (before.sha256, before.runtime) == (after.sha256, after.runtime):
        yield "the same file in the same runtime: the machine, or what else runs on it, changed"

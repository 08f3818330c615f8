"""The latency of files over many saved profiles: since which commit a file is slower, by how much, how surely.

A series holds the runs of one file with the same settings on one kind of machine, in order. Its levels are found by
`toolchain.stats.change_points`; a change is as large as the typical times of both levels differ. Where a change cannot
be placed at one run, the runs that it may have come with are named. What drifts with the hours of a day, or comes in
waves, is no exchangeable noise, and raises more false alarms than `LEVEL` says.
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
from toolchain.stats.change_points import LEVEL, MIN_SEGMENT, Place, Shift, change_points, place, shift
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
    """A new level. index: of the point that is likeliest its first one. runs_before, runs_after: in both levels.

    earliest, latest: of the points that may be its first one too. since: the ratio of the newest level to the level
    before. standing: whether it is a slowdown that lasts until now. sure: whether the quiet runs alone show that,
    or other work does not explain it. reasons: what else changed there.
    """

    index: int
    earliest: int
    latest: int
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
            yield f"{self._runs} cannot show a change; it takes {ENOUGH}"
            return
        standing = [change for change in self.changes if change.standing]
        for change in standing:
            doubt = "" if change.sure else "; NOT QUIET: the quiet runs alone do not show it"
            yield f"slower since {self._since(change)}{doubt}"
            yield from change.reasons
        if standing:
            return
        faster = [change for change in self.changes if change.size.faster and change.since.faster]
        lasting = [f"faster since {self._since(change)}" for change in faster[-1:]]
        if not lasting or any(change.size.slower for change in self.changes):
            lasting.insert(0, "not slower than before" if self.changes else f"no change in {self._runs}")
        yield "; ".join(lasting)

    @property
    def _runs(self) -> str:
        return counted(len(self.points), "run")

    def _since(self, change: Change) -> str:
        """Return since when a level lasts, and by how much the newest level differs from the one before it."""
        size = change.since
        return (
            f"{self._first_run(change)}: {size.ratio:.2f} [{size.low:.2f}, {size.high:.2f}] times as long, "
            f"{counted(change.runs_before, 'run')} before"
        )

    def _first_run(self, change: Change) -> str:
        """Return since which run a level lasts: one, or those that it may be; and the run before, at the old level."""
        before, first, last, likeliest = (
            self.points[k].name for k in (change.earliest - 1, change.earliest, change.latest, change.index)
        )
        not_yet = f" (not yet {before})" if before != first else ""
        if first == last:
            return first + not_yet
        return f"a run from {first} to {last}, likeliest {likeliest}{not_yet}"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types; times in nanoseconds."""
        places = ("commit", "index"), ("earliest_commit", "earliest"), ("latest_commit", "latest")
        changes = [
            asdict(change)
            | {"kind": change.kind, "commit_before": self.points[change.earliest - 1].commit}
            | {name: self.points[getattr(change, place)].commit for name, place in places}
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
    places = _places(logs, change_points(logs, seed=seed))
    edges = [0, *(each.likeliest for each in places), len(logs)]
    newest = range(edges[-2], edges[-1])
    changes = []
    for (start, index, end), found in zip(zip(edges, edges[1:], edges[2:], strict=False), places, strict=True):
        before, after = range(start, index), range(index, end)
        size, since = (Ratio.of(_shift(logs, before, level)) for level in (after, newest))
        standing = size.slower and since.slower
        quiet = [[k for k in level if series.points[k].quiet] for level in (before, newest)]
        disturbed = ([series.points[k].disturbance for k in level] for level in (before, newest))
        shown = (all(quiet) and Ratio.of(_shift(logs, *quiet)).slower) or not is_explained(since.low, *disturbed)
        reasons = tuple(_reasons(series.points[found.earliest - 1 : found.latest + 1]))
        sure = standing and shown
        changes.append(
            Change(index, found.earliest, found.latest, size, len(before), len(after), since, standing, sure, reasons)
        )
    return replace(series, changes=tuple(changes))


def _places(logs: Sequence[float], splits: Sequence[int]) -> list[Place]:
    """Return where the levels begin that splits found, each between the change before and the split after it."""
    places, start = list[Place](), 0
    for split, end in pairwise([*splits, len(logs)]):
        places.append(place(logs, start, split, end))
        start = places[-1].likeliest
    return places


def _shift(logs: Sequence[float], before: Sequence[int], after: Sequence[int]) -> Shift:
    return shift([logs[k] for k in before], [logs[k] for k in after])


def _reasons(points: Sequence[Point]) -> Iterator[str]:
    """Yield what changed in the runs of which one is the first of a new level, the run before them included."""
    several, reasons = len(points) > 2, list[str]()
    for before, after in pairwise(points):
        where = f"at {after.name}" if several else "there"
        if before.sha256 != after.sha256:
            reasons.append(f"the content of the file changed {where}")
        if before.runtime != after.runtime:
            reasons.append(f"{after.runtime} {where}, not {before.runtime}")
    if points[0].commit and len({point.commit for point in points}) == 1:
        run = "the run before is" if not several else "they and the run before are"
        yield f"{run} of commit {points[0].name} too, so no commit made the difference"
    yield from reasons
    if not reasons:
        yield "the same file in the same runtime: the machine, or what else runs on it, changed"

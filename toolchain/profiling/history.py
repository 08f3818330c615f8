"""Stored runs side by side: the latency of each file, compared with the first file of its run or with the first run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from targets.session import taints_of
from toolchain.core.errors import EvidenceError
from toolchain.evaluation.timings import LatencyRatio, StoredRow, StoredRun, not_quiet
from toolchain.profiling.latency import interruptions, percentiles


@dataclass(frozen=True, eq=False)
class Line:
    """One file in one run. ratio: of medians, to the file or run compared with; None for that one, or if unknown."""

    run: str
    row: StoredRow
    ratio: LatencyRatio | None

    def percentiles(self) -> dict[str, float | None]:
        """Return `latency.percentiles`, all None for a simulated device, which has no latency."""
        return percentiles(None if self.row.timings.facts.simulated else self.row.timings)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types; times in nanoseconds."""
        timings = self.row.timings
        return {
            "run": self.run,
            "artifact": self.row.artifact,
            "sha256": timings.artifact_sha256,
            "facts": asdict(timings.facts),
            "batch": timings.batch,
            "samples": len(timings.samples_ns),
            "rounds": len(timings.blocks),
            "percentiles_ns": self.percentiles(),
            **interruptions(timings),
            "ratio": asdict(self.ratio) if self.ratio else None,
        }


def history(runs: Sequence[StoredRun]) -> list[Line]:
    """Return the lines of one run, or those of several runs ordered by file.

    Raises EvidenceError if a file was timed with other threads or another batch than in the first run, or if a run has
    no file of the first run.
    """
    if len(runs) == 1:
        return [Line(runs[0].name, row, _in_one_run(row, runs[0])) for row in runs[0].rows]
    first = {row.key: row for row in reversed(runs[0].rows)}
    for run in runs[1:]:
        shared = [row for row in run.rows if row.key in first]
        if not shared:
            raise EvidenceError(f"{run.name} times no file of {runs[0].name} on the same target; give runs of one file")
        for row in shared:
            _refuse_other_settings(row, first[row.key], run.name, runs[0].name)
    keys = dict.fromkeys(row.key for run in runs for row in run.rows)
    return [
        Line(run.name, row, LatencyRatio.apart(row.timings, first[key].timings))
        if key in first and run is not runs[0] and not row.timings.facts.simulated
        else Line(run.name, row, None)
        for key in keys
        for run in runs
        for row in run.rows
        if row.key == key
    ]


def notes(runs: Sequence[StoredRun]) -> Iterator[str]:
    """Yield what differs between the runs, and which of them were timed on a busy machine."""
    base, *others = runs
    first = {row.key: row for row in reversed(base.rows)}
    for run in others:
        changes: dict[str, None] = {}
        for row in run.rows:
            if row.key in first:
                changes |= dict.fromkeys(_changes(row, first[row.key]))
        yield from (f"{run.name} against {base.name}: {change}" for change in changes)
    simulated = {row.timings.facts.target for run in runs for row in run.rows if row.timings.facts.simulated}
    yield from (f"{target} is simulated, so it has no latencies" for target in sorted(simulated))
    for run in runs:
        yield from (f"{run.name}: {line}" for line in run.untimed)
        yield from (f"{run.name}: {line}" for line in not_quiet(taints_of(row.timings for row in run.rows)))


def _changes(row: StoredRow, base: StoredRow) -> Iterator[str]:
    timings, base_timings = row.timings, base.timings
    if row.machine != base.machine:
        yield f"another machine ({row.machine}, not {base.machine}), so the ratio is not only that of the files"
    sha256, base_sha256 = timings.artifact_sha256, base_timings.artifact_sha256
    if sha256 != base_sha256:
        yield f"{row.artifact} has other content (sha256 {sha256[:8]}, not {base_sha256[:8]})"
    if (timings.facts.runtime, timings.facts.version) != (base_timings.facts.runtime, base_timings.facts.version):
        yield (
            f"another runtime ({timings.facts.runtime} {timings.facts.version}, not {base_timings.facts.runtime} "
            f"{base_timings.facts.version})"
        )


def _in_one_run(row: StoredRow, run: StoredRun) -> LatencyRatio | None:
    """Return the ratio to the first file in the same runtime on the same target; both were timed in turns."""
    where = (row.timings.facts.target, row.timings.facts.runtime)
    base = next(other for other in run.rows if (other.timings.facts.target, other.timings.facts.runtime) == where)
    return None if base is row or row.timings.facts.simulated else LatencyRatio.of(row.timings, base.timings)


def _refuse_other_settings(row: StoredRow, base: StoredRow, run: str, first: str) -> None:
    for name, value, base_value in (
        ("threads", row.timings.facts.threads, base.timings.facts.threads),
        ("batch", row.timings.batch, base.timings.batch),
    ):
        if value != base_value:
            raise EvidenceError(
                f"{row.artifact} was timed with {name} {value} in {run} and {base_value} in {first}; "
                "these cannot be compared; time both with the same settings"
            )

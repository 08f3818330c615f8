"""Saved profiles as tables: those of a folder, two of them compared, and the latencies of many over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from targets.host.text import one_line
from toolchain.core.quantities import counted, time_text
from toolchain.profiling.latency_history import LatencyHistory, Series
from toolchain.profiling.run_comparison import RowComparison, RunComparison
from toolchain.profiling.saved import SHORT, SavedProfile, SavedRow
from toolchain.report.tables import DASH, Columns, markdown_text, ratio_text, spreadsheet_csv
from toolchain.report.text_charts import history_chart
from toolchain.stats.change_points import LEVEL, PLACED
from toolchain.stats.decision import Outcome


def commit_text(run: SavedProfile) -> str:
    """Return a commit in the length that people read; a dash where none is known."""
    return run.commit[:SHORT] or DASH


def day_text(run: SavedProfile) -> str:
    """Return when a run began: `2026-11-29 15:10`."""
    return run.created[:16].replace("T", " ")


def _p50(row: SavedRow) -> str:
    if row.instructions:
        return f"{row.instructions.median:,.0f} instructions"
    ns = row.timed.percentile(50) if row.timed else None
    return DASH if ns is None else time_text(ns / 1e9)


def _machine(run: SavedProfile, row: SavedRow) -> str:
    machine = run.machine_of(row)
    return str(machine.get("board") or machine.get("cpu", DASH))


def runs_list(runs: Sequence[SavedProfile]) -> Columns:
    """Return one row for each file of each run."""
    lines = [(run, row) for run in runs for row in run.rows]
    cells = {
        "run": [run.name for run, _ in lines],
        "commit": [commit_text(run) for run, _ in lines],
        "artifact": [row.artifact for _, row in lines],
        "target": [row.target for _, row in lines],
        "p50": [_p50(row) for _, row in lines],
        "machine": [_machine(run, row) for run, row in lines],
        "quiet": ["no" if run.taints else "yes" for run, _ in lines],
    }
    return Columns(cells, [], ("run", "commit", "artifact", "target", "machine", "quiet"), ("machine", "commit"))


def runs_csv(runs: Sequence[SavedProfile]) -> str:
    """Return one line for each file of each run, in nanoseconds; there is a run."""
    lines = [
        {
            "run": run.name,
            "created": run.created,
            "commit": run.commit,
            "artifact": row.artifact,
            "sha256": row.sha256,
            "bytes": row.bytes,
            "target": row.target,
            "threads": row.facts.threads if row.facts else None,
            "batch": row.batch,
            "p50_ns": row.timed.percentile(50) if row.timed else None,
            "samples": len(row.timed.samples_ns) if row.timed else 0,
            "instructions": row.instructions.median if row.instructions else None,
            "machine": _machine(run, row),
            "quiet": not run.taints,
            "refused": row.refused,
        }
        for run in runs
        for row in run.rows
    ]
    return spreadsheet_csv(lines)


def runs_dict(runs: Sequence[SavedProfile], unreadable: Sequence[str]) -> dict[str, Any]:
    """Return the same as JSON types, with the files that could not be read."""
    return {
        "runs": [
            {
                "path": run.name,
                "created": run.created,
                "commit": run.commit,
                "machine": run.machine,
                "taints": list(run.taints),
                "tools": run.tools,
                "files": [
                    {
                        "artifact": row.artifact,
                        "sha256": row.sha256,
                        "target": row.target,
                        "p50_ns": row.timed.percentile(50) if row.timed else None,
                        "samples": len(row.timed.samples_ns) if row.timed else 0,
                        "instructions": row.instructions.median if row.instructions else None,
                    }
                    for row in run.rows
                ],
            }
            for run in runs
        ],
        "unreadable": list(unreadable),
    }


_SAID = {Outcome.FAIL: "SLOWER", Outcome.INCONCLUSIVE: "not known", Outcome.PASS: "not slower"}


def _said(row: RowComparison) -> str:
    if row.outcome is Outcome.PASS and row.ratio and row.ratio.high is not None and row.ratio.high < 1:
        return "faster"
    if row.outcome is Outcome.INCONCLUSIVE and row.ratio and row.ratio.slower:
        return "slower, NOT QUIET"
    return _SAID[row.outcome]


def comparison_table(compared: RunComparison) -> Columns:
    """Return one row for each file: before, after, the ratio with its interval, and what that says."""
    rows = compared.rows
    cells = {
        "artifact": [row.row.artifact for row in rows],
        "target": [row.row.target for row in rows],
        "before": [_p50(row.base) for row in rows],
        "after": [_p50(row.row) for row in rows],
        "ratio": [_ratio(row) for row in rows],
        "": [_said(row) for row in rows],
    }
    names = [f"before: {_named(compared.base)}", f"after: {_named(compared.run)}"]
    return Columns(cells, [*names, *compared.lacking, *compared.remarks], ("artifact", "target", ""), ())


def _named(run: SavedProfile) -> str:
    return f"{run.name}, {day_text(run)}{f', commit {commit_text(run)}' if run.commit else ''}"


def _ratio(row: RowComparison) -> str:
    if row.instructions_ratio is not None:
        return f"{row.instructions_ratio:.3f}"
    return ratio_text(row.ratio) if row.ratio else DASH


def comparison_csv(compared: RunComparison) -> str:
    """Return one line for each file, in nanoseconds."""
    lines = [
        {
            "artifact": row.row.artifact,
            "target": row.row.target,
            "base_sha256": row.base.sha256,
            "sha256": row.row.sha256,
            "base_p50_ns": row.base.timed.percentile(50) if row.base.timed else None,
            "p50_ns": row.row.timed.percentile(50) if row.row.timed else None,
            "ratio": row.ratio.ratio if row.ratio else row.instructions_ratio,
            "low": row.ratio.low if row.ratio else None,
            "high": row.ratio.high if row.ratio else None,
            "runs_before": row.runs_before,
            "runs_after": row.runs_after,
            "outcome": str(row.outcome),
            "said": _said(row),
        }
        for row in compared.rows
    ]
    return spreadsheet_csv(lines)


def history_text(history: LatencyHistory) -> str:
    """Return what each series shows and its chart, and how sure that is."""
    parts = ["\n".join([*map(one_line, _series_lines(series)), history_chart(series)]) for series in history.series]
    return "\n\n".join([*parts, _CHART_NOTE])


def history_markdown(history: LatencyHistory) -> str:
    """Return the same as Markdown."""
    parts = []
    for series in history.series:
        lines = "\n".join(f"- {markdown_text(line)}" for line in _series_lines(series))
        # Indented, so that no name of a commit ends the block.
        chart = "\n".join(f"    {line}" for line in history_chart(series).splitlines())
        parts.append(f"{lines}\n\n<!-- -->\n\n{chart}")
    return "\n\n".join([*parts, "\n".join(f"- {markdown_text(line)}" for line in _CHART_NOTE.splitlines())]) + "\n"


_CHART_NOTE = (
    "times: of a run the geometric mean of the medians of its rounds, without the fifth at either end (not the p50 of "
    "`profile list`, which is of all samples)\n"
    "* quiet run, o NOT QUIET, | median of the level, ? the likeliest first run of a level that may begin beside it "
    f"({PLACED:.0%} sure)\n"
    f"a series without a change shows one in {round(1 / LEVEL)} times (E-divisive, permutations); ratios with 95 % "
    "intervals"
)


def _series_lines(series: Series) -> list[str]:
    """Return what a series shows, and where it was measured."""
    machine = series.machine.get("board") or series.machine.get("cpu") or "an unknown machine"
    ended = "" if series.current else "; not in the newest run"
    settings = f"{counted(series.threads, 'thread')}, batch {series.batch}, {machine}{ended}"
    return [*(f"{series.name}: {line}" for line in series.sentences()), settings]


def history_csv(history: LatencyHistory) -> str:
    """Return one line for each run of each series, in nanoseconds."""
    lines = [
        {
            "artifact": series.artifact,
            "target": series.target,
            "threads": series.threads,
            "batch": series.batch,
            "run": point.run,
            "created": point.created,
            "commit": point.commit,
            "ns": point.ns,
            "quiet": point.quiet,
            "sha256": point.sha256,
            "runtime": point.runtime,
            "level": sum(change.index <= index for change in series.changes),
            "may_begin_a_level": any(change.earliest <= index <= change.latest for change in series.changes),
        }
        for series in history.series
        for index, point in enumerate(series.points)
    ]
    return spreadsheet_csv(lines)

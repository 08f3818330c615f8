"""Stored timings as a table: one row for each file in each run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.table import Table

from toolchain.core.quantities import time_text
from toolchain.evaluation.timings_file import StoredRun
from toolchain.profiling.history import Line, history, notes
from toolchain.profiling.latency import PERCENTILES
from toolchain.report import gfm
from toolchain.report.terminal import DASH, fitted, plain_table, shown, unbroken
from toolchain.report.timings import ratio_text

_TEXT_COLUMNS = ("artifact", "target", "run")
_DROPPED_FIRST = ("p99.9", "p90", "samples", "p99", "p95")
"""Columns that a narrow terminal leaves out, the first of them first."""


def history_text(runs: Sequence[StoredRun], *, width: int | None = None, colour: bool = False) -> str:
    """Return the table and its remarks. width: of the terminal, None for no limit."""
    lines = history(runs)

    def table(without: Sequence[str]) -> Table:
        names, rows = _cells(lines, without)
        made = plain_table(names, left=_TEXT_COLUMNS)
        for row in rows:
            made.add_row(*map(shown, row))
        return made

    fitting, hidden = fitted(table, _DROPPED_FIRST, width)
    return unbroken(fitting, *hidden, *_remarks(runs), colour=colour)


def history_markdown(runs: Sequence[StoredRun]) -> str:
    """Return the same as Markdown, with every column."""
    names, rows = _cells(history(runs), ())
    right = [k for k, name in enumerate(names) if name not in _TEXT_COLUMNS]
    table = gfm.table(names, [[gfm.text(cell) for cell in row] for row in rows], right=right)
    return "\n".join([table, "", *(f"- {gfm.text(line)}" for line in _remarks(runs))])


def history_dict(runs: Sequence[StoredRun]) -> dict[str, Any]:
    """Return the same as JSON types."""
    return {"lines": [line.to_dict() for line in history(runs)], "notes": list(notes(runs))}


def _cells(lines: Sequence[Line], without: Iterable[str]) -> tuple[list[str], list[list[str]]]:
    compares_runs = len({line.run for line in lines}) > 1
    columns = {
        "artifact": [line.row.artifact for line in lines],
        "target": [line.row.timings.facts.target for line in lines],
        **({"run": [line.run for line in lines]} if compares_runs else {}),
        "samples": [f"{len(line.row.timings.samples_ns):,}" for line in lines],
        **{f"p{q:g}": [_time(line.percentiles()[f"p{q:g}"]) for line in lines] for q in PERCENTILES},
        "of first run" if compares_runs else "of first": [
            ratio_text(line.ratio) if line.ratio else DASH for line in lines
        ],
    }
    shown_columns = {name: cells for name, cells in columns.items() if name not in without and set(cells) != {DASH}}
    return list(shown_columns), [list(row) for row in zip(*shown_columns.values(), strict=True)]


def _time(ns: float | None) -> str:
    return DASH if ns is None else time_text(ns / 1e9)


def _remarks(runs: Sequence[StoredRun]) -> list[str]:
    explained = (
        "of first run: ratio of the medians of two runs, with a 95 % interval from how much their rounds differ; what "
        "changed on the machine between the runs is not in it"
        if len(runs) > 1
        else "of first: to the first file in the same runtime there, timed in turns with it, 95 % interval"
    )
    return [explained, *notes(runs)]

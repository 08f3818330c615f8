"""The tables of `profile --per-op`, one row an operator, and of its sweeps, one row a way to run a file."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from targets.host.clock import PROFILE_RUNS
from targets.host.text import one_line
from targets.session import taints_of
from toolchain.core.quantities import time_text
from toolchain.core.visible import shown
from toolchain.profiling.per_operator import Breakdown
from toolchain.profiling.sweep import SweepPoint
from toolchain.report.timings import DASH, crowded, not_quiet, threads_text, unbroken


def operators_text(breakdowns: Sequence[Breakdown], *, colour: bool = False) -> str:
    """Return a table for each artifact in each place, and what the figures are."""
    tables = [f"{one_line(_heading(one))}\n{unbroken(_operator_table(one), colour=colour)}" for one in breakdowns]
    note = (
        f"mean of the middle three fifths of {PROFILE_RUNS} inferences, by the runtime's own profiler: it counts whole "
        "microseconds, and its own work (some 2 us an operator in ONNX Runtime) is in them"
    )
    taints = tuple(dict.fromkeys(word for one in breakdowns for word in one.taints))
    notes = [note, *crowded((one.threads, one.cores) for one in breakdowns), *not_quiet(taints)]
    return "\n\n".join([*tables, "\n".join(map(one_line, notes))])


def _heading(breakdown: Breakdown) -> str:
    threads = threads_text(breakdown.threads)
    return f"{breakdown.artifact.path.name} on {breakdown.target}, {threads}, batch {breakdown.batch}"


def _operator_table(breakdown: Breakdown) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("operator", no_wrap=True)
    table.add_column("layer", no_wrap=True)
    table.add_column("time", justify="right")
    table.add_column("share", justify="right")
    for one in breakdown.operators:
        share = one.ns / breakdown.ns if breakdown.ns else 0.0
        time = time_text(one.ns / 1e9) if one.ns else "< 1 us"
        table.add_row(shown(one.kernel), shown(one.layer or DASH), time, f"{share:.1%}")
    table.add_row("all", "", time_text(breakdown.ns / 1e9), "")
    return table


def sweep_text(points: Sequence[SweepPoint], *, colour: bool = False) -> str:
    """Return one row a way: what an inference and an image take, and how much faster than on the first threads."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("artifact", "target", "threads", "batch", "p50", "an image", "speed-up"):
        table.add_column(heading, justify="left" if heading in ("artifact", "target") else "right", no_wrap=True)
    first: dict[tuple[str, str, int], SweepPoint] = {}
    for point in points:
        base = first.setdefault((point.artifact, point.target, point.batch), point)
        words = [*map(shown, (point.artifact, point.target, str(point.threads), str(point.batch)))]
        if point.timings is None or point.image_ns is None or not base.image_ns:
            table.add_row(*words, shown(point.refused or "-"), "-", "-")
            continue
        each, all_ = (time_text(ns / 1e9) for ns in (point.image_ns, point.image_ns * point.batch))
        table.add_row(*words, all_, each, f"{base.image_ns / point.image_ns:.2f}")
    timed = [one.timings for one in points if one.timings]
    notes = crowded((one.facts.threads, one.machine.get("usable_cores", 0)) for one in timed)
    return unbroken(table, *notes, *not_quiet(taints_of(timed)), colour=colour)

"""The table of a sweep: one row a way to run a file."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from targets.target import taints_of
from toolchain.profiling.sweep import SweepPoint
from toolchain.quantities import time_text
from toolchain.report.timings import crowded, not_quiet, unbroken
from toolchain.visible import shown


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

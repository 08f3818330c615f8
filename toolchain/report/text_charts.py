"""Pictures made of characters: the histogram of latencies, and the latency of a file over many runs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from targets.host.text import one_line
from targets.session import Timings
from toolchain.core.quantities import counted, time_text
from toolchain.profiling.latency_history import Change, Series
from toolchain.profiling.measurements import Measurements
from toolchain.profiling.saved import SHORT

BINS = 16
BAR = 60
"""Characters of the longest bar: a line with it fits 80 columns."""
SHOWN = 97.0
"""Percentile up to which bins are of equal width; the last line counts what lies above."""


def histograms(measured: Measurements) -> str:
    """Return a histogram for each file that was timed on a device; names what has none."""
    parts = []
    for file in measured.files:
        heading = one_line(f"{file.artifact.path.name} on {file.target}")
        if file.timed is None:
            parts.append(f"{heading}: no latencies, so no histogram")
        else:
            parts.append(
                "\n".join([f"{heading}, {counted(len(file.timed.samples_ns), 'sample')}", *_lines(file.timed)])
            )
    return "\n\n".join(parts)


def _lines(timings: Timings) -> Iterator[str]:
    """Yield a line for each bin, from its lower edge on, and one for what lies above `SHOWN`."""
    samples = timings.worked_ns
    low, high = int(samples.min()), int(np.percentile(samples, SHOWN)) + 1
    edges = np.unique(np.linspace(low, high, BINS + 1).round().astype(np.int64))
    counts = np.histogram(samples[samples < high], edges)[0]
    most = max(1, int(counts.max()))
    for edge, count in zip(edges, counts, strict=False):
        # A bin that holds anything shows at least one mark.
        bar = "#" * max(round(BAR * count / most), int(count > 0))
        yield f"{time_text(edge / 1e9):>8}  {bar} {count:,}" if count else f"{time_text(edge / 1e9):>8}"
    above = int((samples >= high).sum())
    yield f"   above  {above:,}, up to {time_text(int(samples.max()) / 1e9)}"


POINTS = 50
"""The newest runs of a series that are drawn."""
WIDTH = 44
"""Columns from the shortest to the longest time, so that a line fits 100."""


def history_chart(series: Series) -> str:
    """Return a line for each run: commit, time, and its mark between the shortest and the longest one.

    `*` is a quiet run, `o` one that was not, `|` the median of its level. The first run of a new level says by how much
    it differs; with `?` where other runs may be the first one.
    """
    first = max(0, len(series.points) - POINTS)
    levels = dict[int, float]()
    for start, end in pairwise(series.edges()):
        levels |= dict.fromkeys(range(start, end), float(np.median([point.ns for point in series.points[start:end]])))
    times = [point.ns for point in series.points[first:]]
    shortest, span = min(times), max(times) - min(times)

    def column(ns: float) -> int:
        return min(max(round((WIDTH - 1) * (ns - shortest) / span), 0), WIDTH - 1) if span else 0

    changes = {change.index: change for change in series.changes}
    lines = [f"{counted(first, 'earlier run')} not drawn; --json has all"] if first else []
    for index, point in enumerate(series.points[first:], first):
        marks = [" "] * WIDTH
        marks[column(levels[index])] = "|"
        marks[column(point.ns)] = "*" if point.quiet else "o"
        day, commit = point.created[:16].replace("T", " "), one_line(point.commit)[:SHORT]
        said = _change_text(changes[index]) if index in changes else ""
        lines.append(f"{commit:{SHORT}}  {day}  {time_text(point.ns / 1e9):>8}  {''.join(marks)}{said}".rstrip())
    return "\n".join(lines)


def _change_text(change: Change) -> str:
    return f"  {change.kind} {change.size.ratio:.2f}{'?' * (change.earliest < change.latest)}"

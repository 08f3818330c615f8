"""Distribution of latencies: which share of inferences took at most so long, and the quantiles in a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from targets.session import Timings
from toolchain.core.quantities import counted, time_text
from toolchain.report.charts.svg import INK, LINE, QUIET, SERIES, WIDTH, Area, Drawing, Scale, number
from toolchain.report.charts.text import fitted, short_names
from toolchain.report.charts.units import time_tick

QUANTILES = (50, 90, 99)
"""Percentiles that are marked."""
_END = 99.8
"""Percentile of the slowest file at which the picture ends: a few interrupted inferences would fill most of it."""
_APART = 3.0
"""Units between two points of a curve; more points would not be seen."""
_OFF = 0.5
"""Units by which a drawn curve may lie off the samples: a quarter of its own width."""
_ROW = 17


def ecdf_svg(timings: Sequence[tuple[str, Timings]], *, width: int = WIDTH) -> str:
    """Return the curve of each file's latencies, without interruptions (`Timings.worked_ns`), on a log axis.

    timings: names of files and their samples. Quantiles that the samples cannot carry are not marked. width: units.
    """
    drawing = Drawing(width)
    if not timings:
        return drawing.svg(
            drawing.paragraph(0, 16, "No file was timed."), "Latency distributions", "No file was timed."
        )
    plot = Area(44, 28, width - 8, 218 if width < 600 else 268)
    sorted_ns = [np.sort(times.worked_ns).astype(np.float64) for _, times in timings]
    ends = [min(values[0] for values in sorted_ns), max(float(np.percentile(values, _END)) for values in sorted_ns)]
    across = Scale.around([max(1.0, end) for end in ends], plot.left + 4, plot.right, log=True, room=0.03)
    up = Scale(0.0, 1.0, plot.bottom, plot.top)
    drawing.x_axis(across, plot.bottom, time_tick, title="latency of an inference, log scale", top=plot.top)
    _levels(drawing, up, plot)
    for index, ((_, times), values) in enumerate(zip(timings, sorted_ns, strict=True)):
        _curve(drawing, values, across, up, index)
        for q in QUANTILES:
            if (latency := times.percentile(q)) is not None and latency <= across.high:
                drawing.add("circle", cx=across(latency), cy=up(q / 100), r=3.2, fill=SERIES[index % len(SERIES)][0])
    beyond = sum(int(np.count_nonzero(values > across.high)) for values in sorted_ns)
    y = _table(drawing, timings, sorted_ns, plot.bottom + 54)
    if beyond:
        total = sum(map(len, sorted_ns))
        y = drawing.paragraph(0, y + 2, f"{counted(beyond, 'inference')} of {total:,} took longer than is drawn.")
    return drawing.svg(y - 4, "Latency distributions", _description(timings))


def _levels(drawing: Drawing, up: Scale, plot: Area) -> None:
    """Draw a line at each marked percentile."""
    drawing.text(0, plot.top - 14, "share of inferences that took at most so long")
    for q in (0, *QUANTILES):
        y = up(q / 100)
        drawing.line((plot.left, y), (plot.right, y), LINE if q else QUIET)
        # That of 0 leaves room for the text of a tick below it.
        drawing.text(plot.left - 4, y + (4 if q else 1), f"{q} %", anchor="end")


def _curve(drawing: Drawing, values: NDArray[np.float64], across: Scale, up: Scale, index: int) -> None:
    """Draw the share of samples up to each value: in steps, where the samples are few enough for them to be seen."""
    colour, dashes = SERIES[index % len(SERIES)]
    count = len(values)
    inside = int(np.searchsorted(values, across.high, side="right"))
    if count <= (up.start - up.end) / _APART:
        steps = [
            f"H{number(across(value))}V{number(up((rank + 1) / count))}" for rank, value in enumerate(values[:inside])
        ]
        first = f"M{number(across(values[0]))} {number(up(0))}"
        drawing.path(first + "".join(steps), colour, width=2, dashes=dashes)
        return
    track: list[tuple[float, float]] = [(across(values[0]), up(0))]
    # A sample for each unit of either axis is more than is drawn; ten thousand of them would take half a second.
    steep = np.linspace(0, inside - 1, num=1 + int(up.start - up.end)).astype(int)
    flat = np.searchsorted(
        values[:inside], np.geomspace(values[0], across.high, num=1 + int(across.end - across.start))
    )
    for rank in np.unique([*steep, *np.minimum(flat, inside - 1)]).tolist():
        point = across(float(values[rank])), up((rank + 1) / count)
        if rank == inside - 1 or max(abs(point[0] - track[-1][0]), abs(point[1] - track[-1][1])) >= _APART:
            track.append(point)
    drawing.curve(_thinned(track), colour, dashes=dashes)


def _thinned(track: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points that a curve needs to lie nowhere further than _OFF from the whole track (Douglas, Peucker)."""
    points = np.array(track)
    kept, spans = {0, len(track) - 1}, [(0, len(track) - 1)]
    while spans:
        first, last = spans.pop()
        along = points[last] - points[first]
        away = points[first + 1 : last] - points[first]
        if not len(away):
            continue
        off = np.abs(along[0] * away[:, 1] - along[1] * away[:, 0]) / max(float(np.hypot(*along)), 1e-9)
        if off.max() > _OFF:
            middle = first + 1 + int(off.argmax())
            kept.add(middle)
            spans += [(first, middle), (middle, last)]
    return [track[index] for index in sorted(kept)]


def _table(
    drawing: Drawing, timings: Sequence[tuple[str, Timings]], sorted_ns: Sequence[NDArray[np.float64]], y: float
) -> float:
    """Write the quantiles of each file beside a piece of its line; returns the baseline of the line after it."""
    columns = [drawing.width - 56 * k for k in (3, 2, 1, 0)]
    for x, heading in zip(columns, (*(f"p{q}" for q in QUANTILES), "slowest"), strict=True):
        drawing.text(x, y, heading, size=11, anchor="end")
    missing = False
    names = fitted(short_names([name for name, _ in timings]), columns[0] - 28 - 50, 11)
    for index, (name, (_, times), values) in enumerate(zip(names, timings, sorted_ns, strict=True)):
        y += _ROW
        colour, dashes = SERIES[index % len(SERIES)]
        drawing.line((0, y - 4), (22, y - 4), colour, width=2, dashes=dashes)
        drawing.text(28, y, name, INK, size=11)
        latencies = [*(times.percentile(q) for q in QUANTILES), float(values[-1])]
        missing |= None in latencies
        for x, latency in zip(columns, latencies, strict=True):
            drawing.text(x, y, "-" if latency is None else time_text(latency / 1e9), INK, size=11, anchor="end")
    y += _ROW + 2
    return drawing.paragraph(0, y, "-: too few single inferences to tell", size=11) if missing else y


def _description(timings: Sequence[tuple[str, Timings]]) -> str:
    """Return the quantiles in words, as the table has them."""
    sentences = []
    for name, times in timings:
        known = [(q, latency) for q in QUANTILES if (latency := times.percentile(q)) is not None]
        texts = [f"{q} % within {time_text(latency / 1e9)}" for q, latency in known]
        samples = counted(len(times.samples_ns), "sample")
        sentences.append(f"{name}, {samples}: {', '.join(texts) or 'too few for quantiles'}.")
    return f"The share of inferences that took at most so long, for {counted(len(timings), 'file')}. " + " ".join(
        sentences
    )

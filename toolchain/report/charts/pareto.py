"""Pareto picture: the size of files against what an inference costs, and below it the fall in accuracy of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal

from toolchain.core.quantities import counted, points_text, size_text, time_text
from toolchain.report.charts.labels import place_labels
from toolchain.report.charts.svg import BASE, FAIL, INK, PASS, QUIET, UNSURE, WIDTH, Area, Drawing, Scale, number
from toolchain.report.charts.text import fitted, short_names, shortened, text_width
from toolchain.report.charts.units import count_tick, points_tick, ratio_tick, size_tick, time_tick
from toolchain.report.report import Report
from toolchain.stats.decision import Outcome

Measure = Literal["ratio", "instructions", "ns"]
"""What an inference costs: p50 latency as a multiple of the float baseline's, instructions, or nanoseconds."""

_AXES: dict[Measure, tuple[str, Callable[[float], str]]] = {
    "ratio": ("p50 latency, times the float baseline's", ratio_tick),
    "instructions": ("instructions of one inference", count_tick),
    "ns": ("p50 latency", time_tick),
}
_ROW = 18
"""Height of a row in the panel of drops."""
_LABEL = 11
"""Size of the names of files."""


@dataclass(frozen=True)
class Point:
    """A file. cost: in the unit of the measure, None where it has none; interval: its 95 % interval.

    drop: fall in accuracy against the baseline, a fraction, positive where the file reads worse; drop_interval: its
    two-sided 95 % interval. outcome: None where it was not judged. winner: whether it is the file to ship.
    """

    name: str
    bytes: int
    cost: float | None
    interval: tuple[float, float] | None = None
    drop: float | None = None
    drop_interval: tuple[float, float] | None = None
    outcome: Outcome | None = None
    baseline: bool = False
    winner: bool = False


def points(report: Report) -> tuple[tuple[Point, ...], Measure]:
    """Return a point for each row of a report, and the measure that its rows have."""
    candidates = [row for row in report.rows if not row.baseline]
    measure: Measure = "ns"
    if any(row.instructions is not None for row in report.rows):
        measure = "instructions"
    elif any(row.p50_ratio is not None for row in candidates):
        measure = "ratio"
    intervals = {(one.candidate, one.candidate_sha256): one.interval for one in report.comparisons}
    found = []
    for row in report.rows:
        cost = {"ns": row.p50_ns, "instructions": row.instructions, "ratio": row.p50_ratio}[measure]
        found.append(
            Point(
                name=row.name,
                bytes=row.bytes,
                cost=cost,
                interval=row.p50_ratio_interval if measure == "ratio" else None,
                drop=row.drop,
                drop_interval=intervals.get((row.name, row.sha256)),
                outcome=row.outcome,
                baseline=row.baseline,
                winner=row.winner,
            )
        )
    return tuple(found), measure


def front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other is both smaller and cheaper than, from the smallest on; none that fails."""
    best: list[Point] = []
    usable = [point for point in points if point.cost is not None and point.outcome != Outcome.FAIL]
    for point in sorted(usable, key=lambda one: (one.bytes, one.cost)):
        if not best or (point.cost or 0) < (best[-1].cost or 0):
            best.append(point)
    return best


@dataclass(frozen=True)
class _Place:
    """A point in the picture: its name there, its number in the list below, and where it lies."""

    point: Point
    name: str
    digits: str
    x: float
    y: float


def pareto_svg(points: Sequence[Point], measure: Measure, *, margin: float | None = None, width: int = WIDTH) -> str:
    """Return the picture of these files.

    margin: the largest drop that the policy allows, a fraction; drawn as a line in the panel of drops. width: units.
    """
    drawing = Drawing(width)
    names = short_names([point.name for point in points])
    measured = [point for point in points if point.cost is not None]
    numbers, plot = False, Area(58, 24, width - 10, 244 if width < 600 else 344)
    if measured:
        numbers = _scatter(drawing, points, names, measure, plot)
        y = _legend(drawing, points, plot.bottom + 52, has_front=len(front(points)) > 1)
    else:
        y = drawing.paragraph(0, 16, "No file was measured, so none has a place by its cost.")
    if 0 < len(measured) < len(points):
        missing = counted(len(points) - len(measured), "file")
        y = drawing.paragraph(0, y, f"{missing} without a measured cost: only in the list below.")
    y = _drops(drawing, points, y + 12, margin, [f"{k} {name}" if numbers else name for k, name in enumerate(names, 1)])
    return drawing.svg(y, "Size against the cost of an inference", _description(points, measure))


def _scatter(drawing: Drawing, points: Sequence[Point], names: Sequence[str], measure: Measure, plot: Area) -> bool:
    """Draw the files by size and cost; return whether one is named by its number in the list."""
    title, text = _AXES[measure]
    costs = [end for point in points if point.cost is not None for end in (point.cost, *(point.interval or ()))]
    sizes = [point.bytes for point in points if point.cost is not None]
    across = Scale.around(sizes, plot.left + 8, plot.right, log=True, room=0.1)
    up = Scale.around(costs, plot.bottom - 8, plot.top, log=True, room=0.1)
    drawing.x_axis(across, plot.bottom, size_tick, title="size of the file", top=plot.top)
    drawing.y_axis(up, plot.left, text, title=title, right=plot.right)
    if measure == "ratio" and up.low < 1 < up.high:
        drawing.line((plot.left, up(1)), (plot.right, up(1)), QUIET, dashes="4 3")
    places = [
        _Place(point, name, str(digits), across(point.bytes), up(point.cost))
        for digits, (point, name) in enumerate(zip(points, names, strict=True), 1)
        if point.cost is not None
    ]
    best = front(points)
    taken = _front(drawing, sorted((place.x, place.y) for place in places if place.point in best))
    taken += [Area(plot.left, up(1) - 1, plot.right, up(1) + 1)] if measure == "ratio" else []
    for place in places:
        radius = 11 if place.point.winner else 7
        taken.append(Area(place.x - radius, place.y - radius, place.x + radius, place.y + radius))
        with drawing.group(_sentence(place.point, measure)):
            if place.point.interval:
                ends = [up(end) for end in place.point.interval]
                drawing.error_bar((place.x, ends[0]), (place.x, ends[1]), colour(place.point))
                taken.append(Area(place.x - 4, min(ends), place.x + 4, max(ends)))
            mark(drawing, place.x, place.y, place.point)
    rank = sorted(places, key=lambda place: (not place.point.winner, place.point not in best))
    return _name(drawing, rank, taken, Area(plot.left + 2, plot.top - 4, drawing.width, plot.bottom - 2))


def _front(drawing: Drawing, track: Sequence[tuple[float, float]]) -> list[Area]:
    """Draw the front as steps: right of and above it lies what another file is better than; return what it covers."""
    if len(track) < 2:
        return []
    steps = "".join(f"H{number(x)}V{number(y)}" for x, y in track[1:])
    drawing.path(f"M{number(track[0][0])} {number(track[0][1])}{steps}", INK, width=1.5, dashes="2 3")
    covered = []
    for (x, y), (next_x, next_y) in pairwise(track):
        covered += [Area(x, y - 1, next_x, y + 1), Area(next_x - 1, min(y, next_y), next_x + 1, max(y, next_y))]
    return covered


def _name(drawing: Drawing, places: Sequence[_Place], taken: Sequence[Area], inside: Area) -> bool:
    """Write the names beside the points; return whether one is named by its number, or not at all."""
    wanted = [
        (
            place.x,
            place.y,
            [*(shortened(place.name, room, _LABEL) for room in (max(160, 0.3 * drawing.width), 90)), place.digits],
        )
        for place in places
    ]
    labels = place_labels(wanted, taken, inside, _LABEL)
    for label in labels:
        if label is None:
            continue
        if label.leader:
            drawing.line(*label.leader, QUIET, width=0.7)
        drawing.text(label.x, label.y, label.text, INK, size=_LABEL)
    return any(label is None or label.text == place.digits for label, place in zip(labels, places, strict=True))


def mark(drawing: Drawing, x: float, y: float, point: Point) -> None:
    """Draw the mark of a file: its shape and its colour both say how it was judged; a ring around the winner."""
    ink = colour(point)
    if point.baseline:
        drawing.rect(Area(x - 4.5, y - 4.5, x + 4.5, y + 4.5), ink)
    elif point.outcome == Outcome.PASS:
        drawing.add("circle", cx=x, cy=y, r=4.5, fill=ink)
    elif point.outcome == Outcome.FAIL:
        ends = number(x - 4), number(y - 4)
        drawing.path(f"M{ends[0]} {ends[1]}l8 8m0-8l-8 8", ink, width=3)
    elif point.outcome == Outcome.INCONCLUSIVE:
        drawing.path(f"M{number(x)} {number(y - 5)}l5 9h-10z", ink, fill=ink)
    else:
        drawing.add("circle", cx=x, cy=y, r=4, fill="none", stroke=ink, stroke_width=1.5)
    if point.winner:
        drawing.add("circle", cx=x, cy=y, r=9, fill="none", stroke=INK, stroke_width=1.5)


def colour(point: Point) -> str:
    """Return the colour of a file's mark and error bars."""
    if point.baseline or point.outcome is None:
        return BASE
    return {Outcome.PASS: PASS, Outcome.FAIL: FAIL, Outcome.INCONCLUSIVE: UNSURE}[point.outcome]


def _legend(drawing: Drawing, points: Sequence[Point], y: float, *, has_front: bool) -> float:
    kinds = {
        "float baseline": Point("", 0, None, baseline=True),
        "passes": Point("", 0, None, outcome=Outcome.PASS),
        "fails": Point("", 0, None, outcome=Outcome.FAIL),
        "inconclusive": Point("", 0, None, outcome=Outcome.INCONCLUSIVE),
        "not judged": Point("", 0, None),
    }
    used = {(point.baseline, None if point.baseline else point.outcome) for point in points}
    entries: list[tuple[Callable[[float, float], None], str]] = [
        (partial(mark, drawing, point=kind), text)
        for text, kind in kinds.items()
        if (kind.baseline, kind.outcome) in used
    ]
    if any(point.winner for point in points):
        ring = partial(drawing.add, "circle", r=7, fill="none", stroke=INK, stroke_width=1.5)
        entries.append((lambda x, y: ring(cx=x, cy=y), "to ship"))
    if has_front:
        steps = partial(drawing.line, colour=INK, width=1.5, dashes="2 3")
        entries.append((lambda x, y: steps((x - 8, y), (x + 8, y)), "nothing is both smaller and faster"))
    return drawing.legend(entries, 0, y)


def _drops(drawing: Drawing, points: Sequence[Point], top: float, margin: float | None, names: Sequence[str]) -> float:
    """Draw a row for each file with its drop in points; returns the height that the picture has then."""
    if all(point.drop is None for point in points):
        return drawing.paragraph(0, top, "No file was compared with a float baseline.") - 8
    y = drawing.paragraph(0, top, "Drop in accuracy against the float baseline, in points, with 95 % interval", INK)
    ends = [100 * end for point in points for end in (point.drop or 0, *(point.drop_interval or ()))]
    room = min(max(text_width(name, _LABEL) for name in names) + 4, 0.42 * drawing.width)
    scale = Scale.around([*ends, 100 * (margin or 0)], room + 8, drawing.width - 44)
    bottom = y + _ROW * len(points)
    drawing.x_axis(scale, bottom, points_tick, top=y - 8)
    drawing.line((scale(0), y - 8), (scale(0), bottom), QUIET)
    note = "right of 0: reads worse"
    if margin is not None:
        drawing.line((scale(100 * margin), y - 8), (scale(100 * margin), bottom), FAIL, dashes="4 3")
        note += f"; dashed: the largest drop allowed, {points_text(margin)}"
    for index, (point, name) in enumerate(zip(points, fitted(names, room, _LABEL), strict=True)):
        _drop_row(drawing, point, y + 5 + _ROW * index, scale, name)
    return drawing.paragraph(0, bottom + 34, note) - 8


def _drop_row(drawing: Drawing, point: Point, y: float, scale: Scale, name: str) -> None:
    drawing.text(0, y + 4, name, INK, size=_LABEL)
    if point.drop is None:
        if point.baseline:
            mark(drawing, scale(0), y, point)
        drawing.text(drawing.width, y + 4, "float" if point.baseline else "none", size=_LABEL, anchor="end")
        return
    with drawing.group(f"{point.name}: {_drop_text(point)}"):
        if point.drop_interval:
            low, high = (scale(100 * end) for end in point.drop_interval)
            drawing.error_bar((low, y), (high, y), colour(point))
        mark(drawing, scale(100 * point.drop), y, point)
    drawing.text(drawing.width, y + 4, points_text(point.drop), INK, size=_LABEL, anchor="end")


def _drop_text(point: Point) -> str:
    if point.drop is None:
        return ""
    ends = point.drop_interval
    interval = f" ({points_text(ends[0])} to {points_text(ends[1])})" if ends else ""
    return f"drop {points_text(point.drop)} points{interval}"


def _cost_text(point: Point, measure: Measure) -> str:
    if point.cost is None:
        return "no measured cost"
    if measure == "ratio":
        ends = f" ({point.interval[0]:.2f} to {point.interval[1]:.2f})" if point.interval else ""
        return f"{point.cost:.2f} times the latency of the float baseline{ends}"
    return time_text(point.cost / 1e9) if measure == "ns" else f"{point.cost:,.0f} instructions"


def _sentence(point: Point, measure: Measure) -> str:
    outcome = "float baseline" if point.baseline else point.outcome or "not judged"
    parts = [size_text(point.bytes), _cost_text(point, measure), _drop_text(point), str(outcome)]
    return f"{point.name}: {', '.join(filter(None, parts))}"


def _description(points: Sequence[Point], measure: Measure) -> str:
    """Return what the picture shows in sentences: the file to ship, and how the others were judged, if any was."""
    shown = f"{counted(len(points), 'file')} by size and by {_AXES[measure][0]}."
    if not any(point.winner or point.outcome for point in points):
        return shown
    outcomes = [point.outcome for point in points if not point.baseline]
    counts = [
        f"{outcomes.count(outcome)} {text}"
        for outcome, text in (
            (Outcome.PASS, "pass"),
            (Outcome.FAIL, "fail"),
            (Outcome.INCONCLUSIVE, "are inconclusive"),
            (None, "were not judged"),
        )
        if outcome in outcomes
    ]
    winner = next((point for point in points if point.winner), None)
    ship = f"The file to ship is {_sentence(winner, measure)}." if winner else "No file is marked as the one to ship."
    judged = f" Of {counted(len(outcomes), 'other file')} {', '.join(counts)}." if counts else ""
    return f"{shown} {ship}{judged}"

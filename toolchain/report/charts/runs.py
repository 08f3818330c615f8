"""Presses over time: size, drop, share of float's time, and instructions of each file, run by run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from toolchain.core.quantities import counted, points_text, size_text
from toolchain.report.charts.pareto import Point, colour, mark
from toolchain.report.charts.svg import INK, LINE, QUIET, WIDTH, Area, Drawing, Scale
from toolchain.report.charts.text import fitted, shortened, text_width
from toolchain.report.charts.units import count_tick, points_tick, ratio_tick, size_tick
from toolchain.report.runs import RunLine
from toolchain.stats.decision import Outcome

_ROW = 18
_SIZE = 11
_GAP = 22
"""Between two panels side by side."""
_HOLLOW = Point("", 0, None)


@dataclass(frozen=True)
class _Panel:
    """A figure of the runs. figure: its name in `RunLine.spoiled`. neutral: where float or no change lies."""

    figure: str
    title: str
    value: Callable[[RunLine], float | None]
    interval: Callable[[RunLine], tuple[float, float] | None]
    text: Callable[[float], str]
    tick: Callable[[float], str]
    neutral: float | None = None


def _drop(line: RunLine) -> float | None:
    return None if line.row.drop is None else 100 * line.row.drop


_PANELS = (
    _Panel("size", "size", lambda line: line.row.bytes, lambda _: None, size_text, size_tick),
    _Panel(
        "drop",
        "drop, points",
        _drop,
        lambda line: line.interval and (100 * line.interval[0], 100 * line.interval[1]),
        lambda points: points_text(points / 100),
        points_tick,
        0.0,
    ),
    _Panel(
        "cost",
        "time, times float's",
        lambda line: line.row.p50_ratio,
        lambda line: line.row.p50_ratio_interval,
        lambda ratio: f"{ratio:.2f}",
        ratio_tick,
        1.0,
    ),
    _Panel("instructions", "instructions", lambda line: line.row.instructions, lambda _: None, count_tick, count_tick),
)


def runs_svg(lines: Sequence[RunLine], *, most: int = 40, width: int = WIDTH) -> str:
    """Return a row for each run of each file, with the figures side by side, or below each other where it is narrow.

    lines: of `run_lines`, by file. A figure that may not be compared with the first run's is hollow, and no line joins
    it to the others. most: rows at the most; the files beyond are counted. width: units.
    """
    drawing = Drawing(width)
    files = [list(group) for _, group in groupby(lines, lambda line: line.file)]
    shown: list[list[RunLine]] = []
    for file in files:
        if not shown or sum(map(len, shown)) + len(file) <= most:
            shown.append(file)
    panels = [panel for panel in _PANELS if any(panel.value(line) is not None for file in shown for line in file)]
    runs = list(dict.fromkeys(line.run for line in lines))
    first, last = min(runs), max(runs)
    same = next((k for k, letters in enumerate(zip(first, last, strict=False)) if len({*letters}) > 1), 0)
    names = {run: run[first.rfind("/", 0, same) + 1 :] for run in runs}
    beside = width >= 600
    room = min(max(text_width(name, _SIZE) for name in names.values()) + 24, 0.3 * width)
    wide = (width - room - _GAP * (len(panels) - 1)) / len(panels) if beside else width - room
    y = bottom = 14.0
    for index, panel in enumerate(panels):
        left = room + (wide + _GAP) * index if beside else room
        bottom = _panel(drawing, panel, shown, Area(left, y, left + wide, y), names if not (beside and index) else {})
        y = y if beside else bottom + 14
    y = _legend(drawing, lines, bottom + 6)
    if len(files) > len(shown):
        y = drawing.paragraph(0, y, f"{counted(len(files) - len(shown), 'file')} more: in the tables below.")
    return drawing.svg(y - 8, "Files from run to run", _description(files, panels))


def _panel(
    drawing: Drawing, panel: _Panel, files: Sequence[Sequence[RunLine]], area: Area, names: dict[str, str]
) -> float:
    """Draw one figure of all files below its title; return the baseline of the line after it.

    area: its top and its sides. names: of the runs, to its left; empty where they stand there already.
    """
    all_lines = [line for file in files for line in file]
    values = [value for line in all_lines for value in _ends(panel, line)]
    behind = max(text_width(_text(panel, line), _SIZE) for line in all_lines) + 8
    log = panel.figure in ("size", "instructions") and max(values) > 4 * min(values)
    neutral = [] if panel.neutral is None else [panel.neutral]
    scale = Scale.around([*values, *neutral], area.left + 10, area.right - behind - 6, log=log)
    top = area.top + 12
    bottom = top + _ROW * (len(all_lines) + len(files)) + 4
    drawing.text(area.left, area.top, panel.title, INK)
    drawing.x_axis(scale, bottom, panel.tick, top=top, most=3)
    if panel.neutral is not None:
        drawing.line((scale(panel.neutral), top), (scale(panel.neutral), bottom), QUIET, dashes="4 3")
    y = top
    for file in files:
        if names:
            # No mark stands in this row, so that the name may reach into the picture.
            name = shortened(file[0].file, (area.left + area.right) / 2, 1.1 * _SIZE)
            drawing.text(0, y + 14, name, INK, size=_SIZE, bold=True)
        rows = [(line, y + 10 + _ROW * k) for k, line in enumerate(file, 1)]
        _joints(drawing, panel, rows, scale)
        labels = fitted([names.get(line.run, "") for line in file], area.left - 14, _SIZE)
        for (line, height), label in zip(rows, labels, strict=True):
            if label:
                drawing.text(10, height + 4, label, size=_SIZE)
            _row(drawing, panel, line, height, scale)
            drawing.text(area.right, height + 4, _text(panel, line), INK, size=_SIZE, anchor="end")
        y += _ROW * (len(file) + 1)
    return bottom + 30


def _ends(panel: _Panel, line: RunLine) -> list[float]:
    value = panel.value(line)
    return [] if value is None else [value, *(panel.interval(line) or ())]


def _text(panel: _Panel, line: RunLine) -> str:
    value = panel.value(line)
    return "-" if value is None else panel.text(value)


def _row(drawing: Drawing, panel: _Panel, line: RunLine, y: float, scale: Scale) -> None:
    """Draw the mark of one figure: by the verdict, or hollow where it may not be compared."""
    value, interval, row = panel.value(line), panel.interval(line), line.row
    if value is None:
        return
    spoiled = bool(line.spoiled(panel.figure))
    judged = Point("", 0, None, outcome=row.outcome, baseline=row.baseline, winner=row.winner)
    point = _HOLLOW if spoiled else judged
    note = f"{line.file}, {line.run}: {panel.title} {panel.text(value)}{', may not be compared' * spoiled}"
    with drawing.group(note):
        if interval:
            drawing.error_bar((scale(interval[0]), y), (scale(interval[1]), y), colour(point))
        mark(drawing, scale(value), y, point)


def _joints(drawing: Drawing, panel: _Panel, rows: Sequence[tuple[RunLine, float]], scale: Scale) -> None:
    """Join the figures that may be compared, run by run."""
    track = [
        (scale(value), y)
        for line, y in rows
        if (value := panel.value(line)) is not None and not line.spoiled(panel.figure)
    ]
    for start, end in pairwise(track):
        drawing.line(start, end, LINE, width=2)


def _legend(drawing: Drawing, lines: Sequence[RunLine], y: float) -> float:
    """Draw the marks that are used; returns the baseline of the line after them."""
    words = {Outcome.PASS: "passes", Outcome.FAIL: "fails", Outcome.INCONCLUSIVE: "inconclusive"}
    outcomes = {line.row.outcome for line in lines}
    kinds = [(Point("", 0, None, outcome=outcome), text) for outcome, text in words.items() if outcome in outcomes]
    if any(line.row.baseline for line in lines):
        kinds.insert(0, (Point("", 0, None, baseline=True), "float baseline"))
    unjudged = any(line.row.outcome is None and not line.row.baseline for line in lines)
    hollow = ["may not be compared"] * any(line.differs for line in lines) + ["not judged"] * unjudged
    if hollow:
        kinds.append((_HOLLOW, " or ".join(hollow)))
    if any(line.row.winner for line in lines):
        kinds.append((Point("", 0, None, outcome=Outcome.PASS, winner=True), "to ship"))
    return drawing.legend([(_marker(drawing, kind), text) for kind, text in kinds], 0, y)


def _marker(drawing: Drawing, point: Point) -> Callable[[float, float], None]:
    return lambda x, y: mark(drawing, x, y, point)


def _description(files: Sequence[Sequence[RunLine]], panels: Sequence[_Panel]) -> str:
    """Return the figures of the first files in words; the tables have them all."""
    sentences = [
        f"{file[0].file}: "
        + "; ".join(f"{panel.title} {', then '.join(_text(panel, line) for line in file)}" for panel in panels)
        for file in files[:4]
    ]
    runs = counted(len({line.run for file in files for line in file}), "run")
    return f"{counted(len(files), 'file')} in {runs}. {'. '.join(sentences)}."

"""Change of each class: how much its accuracy fell or rose, with its interval, the largest change first."""

from __future__ import annotations

from collections.abc import Sequence

from toolchain.core.quantities import counted, points_text
from toolchain.evaluation.compare import CONFIDENCE, ClassDrop
from toolchain.report.charts.svg import BLUE, INK, ORANGE, QUIET, WIDTH, Drawing, Scale
from toolchain.report.charts.text import shortened, text_width
from toolchain.report.charts.units import listed, points_tick
from toolchain.stats import paired_difference

_ROW = 18
_COUNTS = 82
"""Units for the numbers of images that were lost and gained."""


def class_change_svg(per_class: Sequence[ClassDrop], *, most: int = 15, width: int = WIDTH) -> str:
    """Return a dot plot of the drop in accuracy of each class that changed (`Comparison.per_class`).

    The intervals are two-sided 95 % ones of each class alone. most: rows at the most. width: units.
    """
    drawing = Drawing(width)
    changed = sorted(
        (one for one in per_class if one.lost or one.gained), key=lambda one: (-abs(one.drop), -one.lost - one.gained)
    )
    if not changed:
        y = drawing.paragraph(0, 16, "No class lost or gained an image.")
        return drawing.svg(y, "Change of each class", "No class lost or gained an image.")
    rows = changed[:most]
    intervals = [paired_difference.interval(one.lost, one.gained, one.images, CONFIDENCE) for one in rows]
    room = min(max(text_width(one.label) for one in rows) + 8, 0.3 * width)
    ends = [100 * end for interval in intervals for end in interval]
    scale = Scale.around([0.0, *ends], max(room, 30), width - _COUNTS - 8)
    y = drawing.paragraph(0, 14, "Drop in points, with 95 % interval of the class alone")
    drawing.text(width, y, "lost, gained", anchor="end")
    top, bottom = y + 8, y + 12 + _ROW * len(rows)
    drawing.x_axis(scale, bottom, points_tick, top=top)
    drawing.line((scale(0), top), (scale(0), bottom), QUIET)
    for index, (one, interval) in enumerate(zip(rows, intervals, strict=True)):
        _row(drawing, one, interval, scale, top + 11 + _ROW * index)
    y = drawing.paragraph(0, bottom + 34, _note(per_class, changed, rows))
    return drawing.svg(y - 6, "Change of each class", _description(per_class, changed))


def _row(drawing: Drawing, one: ClassDrop, interval: tuple[float, float], scale: Scale, y: float) -> None:
    """Draw one class; worse is filled, better hollow."""
    colour = ORANGE if one.drop > 0 else BLUE if one.drop < 0 else QUIET
    drawing.text(0, y + 4, shortened(one.label, scale.start - 8), INK)
    low, high = (points_text(end) for end in interval)
    with drawing.group(
        f"{one.label}: drop {points_text(one.drop)} points ({low} to {high}), {counted(one.images, 'image')}"
    ):
        x, ends = scale(100 * one.drop), [scale(100 * end) for end in interval]
        drawing.error_bar((ends[0], y), (ends[1], y), colour)
        fill = colour if one.drop > 0 else "var(--paper, #ffffff)"
        drawing.add("circle", cx=x, cy=y, r=4.5, fill=fill, stroke=colour, stroke_width=1.5)
    drawing.text(drawing.width, y + 4, f"-{one.lost:,}  +{one.gained:,}", INK, anchor="end")


def _note(per_class: Sequence[ClassDrop], changed: Sequence[ClassDrop], rows: Sequence[ClassDrop]) -> str:
    note = "Filled, right of 0: reads worse."
    if smaller := len(changed) - len(rows):
        note += f" {counted(smaller, 'class', 'classes')} changed less."
    if equal := len(per_class) - len(changed):
        note += f" {counted(equal, 'class', 'classes')} did not change."
    return note


def _description(per_class: Sequence[ClassDrop], changed: Sequence[ClassDrop]) -> str:
    worse = [f"{one.label} by {points_text(one.drop)}" for one in changed if one.drop > 0]
    better = [f"{one.label} by {points_text(-one.drop)}" for one in changed if one.drop < 0]
    return (
        f"Of {counted(len(per_class), 'class', 'classes')} {len(worse):,} are read worse"
        f"{': ' * bool(worse)}{listed(worse)}; {len(better):,} better{': ' * bool(better)}{listed(better)}; in points."
    )

"""Calibration ranges: a histogram of each tensor's values, and which of them its range clips."""

from __future__ import annotations

from math import log10

from toolchain.core.quantities import counted
from toolchain.quantize.ranges import KEPT_BINS, Ranges, TensorRange
from toolchain.report.charts.svg import BLUE, INK, ORANGE, WIDTH, Area, Drawing, Scale, number
from toolchain.report.charts.text import shortened, wrapped
from toolchain.report.charts.units import listed

_PANEL, _GAP, _TALL = 300, 24, 80
"""Least width of a histogram, between two of them, and the height of the largest bar."""
_FINE = 2
"""Parts of a unit in which a bar is drawn: whole numbers take half of the bytes."""
_PITCH = _TALL + 78
_SIZE = 11


def ranges_svg(ranges: Ranges, *, most: int | None = 12, width: int = WIDTH, standalone: bool = False) -> str:
    """Return one picture with a histogram per tensor; the height of a bar is the logarithm of its count.

    most: histograms at the most, None for all; where there are more tensors, those that lose most values. width: units.
    standalone: for a file of its own (`Drawing.svg`).
    """
    drawing = Drawing(width)
    tensors = ranges.tensors
    if most is not None and len(tensors) > most:
        worst = sorted(range(len(tensors)), key=lambda k: -tensors[k].clipped)[:most]
        tensors = tuple(tensors[k] for k in sorted(worst))
    margin = _GAP if standalone else 0
    y = drawing.paragraph(margin, 16, ranges_title(ranges), INK, size=14)
    y = drawing.paragraph(margin, y + 2, _meaning(ranges, len(tensors)))
    columns = max(1, (width - 2 * margin + _GAP) // (_PANEL + _GAP))
    wide = (width - 2 * margin - _GAP * (columns - 1)) / columns
    for index, tensor in enumerate(tensors):
        left, top = margin + index % columns * (wide + _GAP), y + index // columns * _PITCH
        _panel(drawing, tensor, Area(left, top + 22, left + wide, top + 22 + _TALL))
    height = y + -(-len(tensors) // columns) * _PITCH
    return drawing.svg(height, ranges_title(ranges), _description(ranges), standalone=standalone)


def ranges_title(ranges: Ranges) -> str:
    """Return the file and the method by which its ranges were chosen."""
    method = f"percentile {ranges.percentile:g}" if ranges.percentile else ranges.method
    return f"{ranges.source}: ranges by {method}"


def clipped_text(tensor: TensorRange) -> str:
    """Return the share of values that a range clips, a dash where it clips none."""
    if not tensor.clipped:
        return "-"
    return f"{tensor.clipped:.2%}" if tensor.clipped >= 1e-4 else "< 0.01%"


def _meaning(ranges: Ranges, drawn: int) -> str:
    parts = "Bars: log of how often; outside the two lines, with hatched ground: clipped; exact zeros counted apart."
    if drawn < len(ranges.tensors):
        parts += f" The {drawn} of {counted(len(ranges.tensors), 'tensor')} that lose most values."
    return parts


def _panel(drawing: Drawing, tensor: TensorRange, area: Area) -> None:
    """Draw the histogram of one tensor between its name and its figures."""
    clipped = f", clipped {clipped_text(tensor)}" if tensor.clipped else ""
    zeros = tensor.zeros / max(1, tensor.zeros + sum(tensor.counts))
    ends = (tensor.lowest, tensor.highest), (tensor.low, tensor.high)
    held, kept = (f"{low:.3g} to {high:.3g}" for low, high in ends)
    spans = f"{held}, all kept" if kept == held and not tensor.clipped else f"{held}, kept {kept}"
    drawing.text(area.left, area.top - 8, shortened(tensor.title, area.right - area.left), INK)
    _bars(drawing, tensor, area)
    drawing.line((area.left, area.bottom), (area.right, area.bottom))
    figures = spans + clipped + (f", {100 * zeros:.0f} % zeros" if zeros else "")
    for index, line in enumerate(wrapped(figures, area.right - area.left, _SIZE)[:2]):
        drawing.text(area.left, area.bottom + 18 + 15 * index, line, size=_SIZE)


def _bars(drawing: Drawing, tensor: TensorRange, area: Area) -> None:
    """Draw the bars, a line at each end of the range, and a hatched ground where values are clipped."""
    first, last = min(tensor.lowest, tensor.low), max(tensor.highest, tensor.high)
    across = Scale(first, last if last > first else first + 1.0, area.left, area.right)
    ends = across(tensor.low), across(tensor.high)
    for left, right in ((area.left, ends[0]), (ends[1], area.right)):
        _hatch(drawing, Area(left, area.top, right, area.bottom))
    pitch = (across(tensor.highest) - across(tensor.lowest)) / KEPT_BINS
    place = f"matrix({pitch:.4f} 0 0 {-1 / _FINE} {number(across(tensor.lowest))} {number(area.bottom)})"
    for kept, colour in ((True, BLUE), (False, ORANGE)):
        if data := _outline(tensor, pitch, kept=kept):
            drawing.add("path", d=data, transform=place, fill=colour)
    for end in ends:
        drawing.line((end, area.top), (end, area.bottom + 4), INK)


def _outline(tensor: TensorRange, pitch: float, *, kept: bool) -> str:
    """Return the outline of the bars inside the range, or outside it, in bins across and _FINE parts of a unit up.

    Neighbours share theirs. pitch: units of a bin.
    """
    tallest, wide = log10(1 + max(tensor.counts)) or 1.0, (tensor.highest - tensor.lowest) / KEPT_BINS
    data, end = "", -1
    for index, count in enumerate(tensor.counts):
        if not count or kept != (tensor.low <= tensor.lowest + (index + 0.5) * wide <= tensor.high):
            continue
        top = round(_TALL * _FINE * log10(1 + count) / tallest)
        if index != end:
            data += f"{'V0z' if data else ''}M{index} 0"
        # A bar that is narrower than a unit would not be seen.
        data += f"V{top}h1" if pitch >= 1 else f"V{top}H{number(index + 1 / pitch)}"
        end = index + 1
    return f"{data}V0z" if data else ""


def _hatch(drawing: Drawing, area: Area) -> None:
    wide, tall = area.right - area.left, area.bottom - area.top
    if wide <= 0.5:
        return
    lines = ""
    for distance in range(4, int(wide + tall), 6):
        start = area.left + max(0, distance - tall), area.top + min(distance, tall)
        end = area.left + min(distance, wide), area.top + max(0, distance - wide)
        lines += f"M{number(start[0])} {number(start[1])}L{number(end[0])} {number(end[1])}"
    drawing.add("path", d=lines, stroke=ORANGE, stroke_opacity="0.5", fill="none")


def _description(ranges: Ranges) -> str:
    clipping = sorted((tensor for tensor in ranges.tensors if tensor.clipped), key=lambda tensor: -tensor.clipped)
    worst = listed([f"{tensor.title} {clipped_text(tensor)}" for tensor in clipping])
    clipped = (
        f"{len(clipping):,} of them clip values, most of all {worst}" if clipping else "none of them clips a value"
    )
    return f"Histograms of the values of {counted(len(ranges.tensors), 'tensor')} with their ranges; {clipped}."

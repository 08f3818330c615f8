"""Ranges as a picture and as a table: the values of each tensor, and how many of them the chosen range clips.

Kept and clipped bars differ in height and place as well as in colour; the colours are of M. Okabe and K. Ito's palette,
which colour-blind people can tell apart (https://jfly.uni-koeln.de/color).
"""

from __future__ import annotations

from math import log10
from pathlib import Path
from xml.sax.saxutils import escape

from targets.host.text import one_line, visible
from toolchain.core.errors import UsageProblem
from toolchain.core.files import write_whole
from toolchain.quantize.ranges import KEPT_BINS, Ranges, TensorRange, read_ranges
from toolchain.report.terminal import plain_table, shown, unbroken

_KEPT, _CLIPPED, _INK, _QUIET, _PAPER = "#0072B2", "#D55E00", "#1a1a1a", "#595959", "#ffffff"
_COLUMNS, _WIDTH, _HEIGHT, _GAP, _HEAD = 3, 300, 90, 30, 64
_PITCH = (_WIDTH + _GAP, _HEIGHT + 78)


def ranges_picture(path: Path, output: Path | None = None, *, force: bool = False) -> Ranges:
    """Read a file of ranges, draw it into `output` (.svg) if that is given, and return the ranges.

    Raises UsageProblem for another suffix or an existing file, and what `read_ranges` raises.
    """
    ranges = read_ranges(path)
    if output is not None:
        if output.suffix != ".svg":
            raise UsageProblem(f"{output}: ranges are drawn as .svg, which every browser shows; name it so")
        write_whole(output, ranges_svg(ranges), force=force)
    return ranges


def ranges_svg(ranges: Ranges) -> str:
    """Return one picture with a histogram per tensor; the height of a bar is the logarithm of its count."""
    rows = -(-len(ranges.tensors) // _COLUMNS)
    width, height = _GAP + _COLUMNS * _PITCH[0], _HEAD + rows * _PITCH[1]
    panels = [
        _panel(tensor, _GAP + index % _COLUMNS * _PITCH[0], _HEAD + index // _COLUMNS * _PITCH[1])
        for index, tensor in enumerate(ranges.tensors)
    ]
    head = f"{ranges.source}: ranges by {method_text(ranges)}"
    meaning = "bars: log of how often; outside the two lines, with hatched ground: clipped; exact zeros counted apart"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif">\n'
        f'<pattern id="off" width="6" height="6" patternUnits="userSpaceOnUse"><path d="M0 6L6 0" stroke="{_CLIPPED}" '
        'stroke-opacity="0.5"/></pattern>\n'
        f'<rect width="100%" height="100%" fill="{_PAPER}"/>\n'
        f"{_text(_GAP, 26, head, 16, _INK)}{_text(_GAP, 46, meaning, 12, _QUIET)}" + "".join(panels) + "</svg>\n"
    )


def ranges_text(ranges: Ranges, *, colour: bool = False) -> str:
    """Return a table with one row per tensor, and where the ranges come from."""
    table = plain_table(("tensor", "low", "high", "lowest", "highest", "clipped"), left=("tensor",))
    for tensor in ranges.tensors:
        ends = (tensor.low, tensor.high, tensor.lowest, tensor.highest)
        table.add_row(shown(tensor.title), *(f"{end:.4g}" for end in ends), _clipped_text(tensor))
    drawn = f"{ranges.calibration.get('images')} images of {ranges.calibration.get('origin')}"
    return f"{unbroken(table, colour=colour)}\n{one_line(f'{ranges.source}: ranges by {method_text(ranges)}, {drawn}')}"


def method_text(ranges: Ranges) -> str:
    """Return the method that chose the ranges: `mse`, or `percentile 99.9`."""
    return f"percentile {ranges.percentile:g}" if ranges.percentile else ranges.method


def _clipped_text(tensor: TensorRange) -> str:
    if not tensor.clipped:
        return "-"
    return f"{tensor.clipped:.2%}" if tensor.clipped >= 1e-4 else "< 0.01%"


def _panel(tensor: TensorRange, left: float, top: float) -> str:
    """Draw the histogram of one tensor between its name and a line of figures."""
    ground = top + 22 + _HEIGHT
    clipped = f", clipped {_clipped_text(tensor)}" if tensor.clipped else ""
    zeros = tensor.zeros / max(1, tensor.zeros + sum(tensor.counts))
    spans = f"[{tensor.low:.4g}, {tensor.high:.4g}] of [{tensor.lowest:.4g}, {tensor.highest:.4g}]"
    return (
        _text(left, top + 14, _shortened(tensor.title), 13, _INK)
        + _bars(tensor, left, ground)
        + f'<path d="M{left} {ground}H{left + _WIDTH}" stroke="{_QUIET}"/>\n'
        + _text(left, ground + 20, spans + clipped + (f", zeros {zeros:.0%}" if zeros else ""), 11, _QUIET)
    )


def _bars(tensor: TensorRange, left: float, ground: float) -> str:
    """Draw the histogram, a line at each end of the range, and a hatched background where values are clipped."""
    first = min(tensor.lowest, tensor.low)
    unit = _WIDTH / (max(tensor.highest, tensor.high) - first or 1.0)
    ends = [left + (end - first) * unit for end in (tensor.low, tensor.high)]
    top, most = ground - _HEIGHT, log10(1 + max(tensor.counts)) or 1.0
    wide = (tensor.highest - tensor.lowest) / KEPT_BINS
    drawn = [
        f'<rect x="{a:.1f}" y="{top}" width="{b - a:.1f}" height="{_HEIGHT}" fill="url(#off)"/>\n'
        for a, b in ((left, ends[0]), (ends[1], left + _WIDTH))
        if b - a > 0.5
    ]
    for index, count in enumerate(tensor.counts):
        start, tall = tensor.lowest + index * wide, _HEIGHT * log10(1 + count) / most
        if count:
            colour = _KEPT if tensor.low <= start + wide / 2 <= tensor.high else _CLIPPED
            box = f'x="{left + (start - first) * unit:.1f}" y="{ground - tall:.1f}" width="{max(1.0, wide * unit):.1f}"'
            drawn.append(f'<rect {box} height="{tall:.1f}" fill="{colour}"/>\n')
    drawn += [f'<path d="M{end:.1f} {top}V{ground + 4}" stroke="{_INK}"/>\n' for end in ends]
    return "".join(drawn)


def _shortened(name: str, most: int = 42) -> str:
    return name if len(name) <= most else f"…{name[-most:]}"


def _text(left: float, line: float, text: str, size: int, colour: str) -> str:
    return f'<text x="{left}" y="{line}" font-size="{size}" fill="{colour}">{escape(visible(text))}</text>\n'

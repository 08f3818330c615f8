"""Pictures (SVG), with their tables: the ranges of tensors, the sensitivity of layers to pruning, curves of trainings.

The colours are of M. Okabe and K. Ito's palette, which colour-blind people can tell apart
(https://jfly.uni-koeln.de/color). No colour stands alone: kept and clipped values differ in place too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log10
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from rich.console import Console

from targets.host.text import one_line, visible
from toolchain.core.errors import UsageProblem
from toolchain.core.files import write_whole
from toolchain.core.quantities import percent_text, points_text
from toolchain.quantize.ranges import KEPT_BINS, Ranges, TensorRange, read_ranges
from toolchain.report.tables import plain_table, print_lines, shown, unbroken, unfold

if TYPE_CHECKING:
    from toolchain.compress.prune.sensitivity import Curve, Sensitivity, SensitivityPoint
    from toolchain.training.log import EpochFigures

_BLUE, _ORANGE, _INK, _QUIET, _PAPER = "#0072B2", "#D55E00", "#1a1a1a", "#595959", "#ffffff"
_PANELS, _PANEL_WIDTH, _PANEL_HEIGHT, _GAP, _TOP = 3, 300, 90, 30, 64
"""The picture of ranges: panels in a row, and pixels."""
_PITCH = (_PANEL_WIDTH + _GAP, _PANEL_HEIGHT + 78)
_CHARTS, _CHART_WIDTH, _CHART_HEIGHT = 4, 250, 190
"""The picture of sensitivity: charts in a row, and pixels."""
_LEFT, _RIGHT, _ABOVE, _BELOW = 46, 22, 40, 34
"""Pixels between the border of a chart and its axes."""


def ranges_picture(path: Path, output: Path | None = None, *, force: bool = False) -> Ranges:
    """Read a file of ranges, draw it into `output` (.svg) if that is given, and return the ranges.

    Raises UsageProblem for another suffix or an existing file, and what `read_ranges` raises.
    """
    ranges = read_ranges(path)
    if output is not None:
        if output.suffix != ".svg":
            raise UsageProblem(f"{output}: ranges are drawn as .svg, which every browser shows; name it so")
        write_whole(output, _ranges_svg(ranges), force=force)
    return ranges


def _ranges_svg(ranges: Ranges) -> str:
    """Return one picture with a histogram per tensor; the height of a bar is the logarithm of its count."""
    rows = -(-len(ranges.tensors) // _PANELS)
    width, height = _GAP + _PANELS * _PITCH[0], _TOP + rows * _PITCH[1]
    panels = [
        _panel(tensor, _GAP + index % _PANELS * _PITCH[0], _TOP + index // _PANELS * _PITCH[1])
        for index, tensor in enumerate(ranges.tensors)
    ]
    meaning = "bars: log of how often; outside the two lines, with hatched ground: clipped; exact zeros counted apart"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif">\n'
        f'<pattern id="off" width="6" height="6" patternUnits="userSpaceOnUse"><path d="M0 6L6 0" stroke="{_ORANGE}" '
        'stroke-opacity="0.5"/></pattern>\n'
        f'<rect width="100%" height="100%" fill="{_PAPER}"/>\n'
        f"{_text(_GAP, 26, _title(ranges), 16, _INK)}{_text(_GAP, 46, meaning, 12, _QUIET)}"
        + "".join(panels)
        + "</svg>\n"
    )


def ranges_text(ranges: Ranges, *, colour: bool = False) -> str:
    """Return a table with one row per tensor, and where the ranges come from."""
    table = plain_table(("tensor", "low", "high", "lowest", "highest", "clipped"), left=("tensor",))
    for tensor in ranges.tensors:
        ends = (tensor.low, tensor.high, tensor.lowest, tensor.highest)
        table.add_row(shown(tensor.title), *(f"{end:.4g}" for end in ends), _clipped_text(tensor))
    drawn = f"{ranges.calibration.get('images')} images of {ranges.calibration.get('origin')}"
    return f"{unbroken(table, colour=colour)}\n{one_line(f'{_title(ranges)}, {drawn}')}"


def _title(ranges: Ranges) -> str:
    method = f"percentile {ranges.percentile:g}" if ranges.percentile else ranges.method
    return f"{ranges.source}: ranges by {method}"


def _clipped_text(tensor: TensorRange) -> str:
    if not tensor.clipped:
        return "-"
    return f"{tensor.clipped:.2%}" if tensor.clipped >= 1e-4 else "< 0.01%"


def _panel(tensor: TensorRange, left: float, top: float) -> str:
    """Draw the histogram of one tensor between its name and a line of figures."""
    ground = top + 22 + _PANEL_HEIGHT
    clipped = f", clipped {_clipped_text(tensor)}" if tensor.clipped else ""
    zeros = tensor.zeros / max(1, tensor.zeros + sum(tensor.counts))
    spans = f"[{tensor.low:.4g}, {tensor.high:.4g}] of [{tensor.lowest:.4g}, {tensor.highest:.4g}]"
    return (
        _text(left, top + 14, _shortened(tensor.title, 42, 42), 13, _INK)
        + _bars(tensor, left, ground)
        + f'<path d="M{left} {ground}H{left + _PANEL_WIDTH}" stroke="{_QUIET}"/>\n'
        + _text(left, ground + 20, spans + clipped + (f", zeros {zeros:.0%}" if zeros else ""), 11, _QUIET)
    )


def _bars(tensor: TensorRange, left: float, ground: float) -> str:
    """Draw the histogram, a line at each end of the range, and a hatched background where values are clipped."""
    first = min(tensor.lowest, tensor.low)
    unit = _PANEL_WIDTH / (max(tensor.highest, tensor.high) - first or 1.0)
    ends = [left + (end - first) * unit for end in (tensor.low, tensor.high)]
    top, most = ground - _PANEL_HEIGHT, log10(1 + max(tensor.counts)) or 1.0
    wide = (tensor.highest - tensor.lowest) / KEPT_BINS
    drawn = [
        f'<rect x="{a:.1f}" y="{top}" width="{b - a:.1f}" height="{_PANEL_HEIGHT}" fill="url(#off)"/>\n'
        for a, b in ((left, ends[0]), (ends[1], left + _PANEL_WIDTH))
        if b - a > 0.5
    ]
    for index, count in enumerate(tensor.counts):
        start, tall = tensor.lowest + index * wide, _PANEL_HEIGHT * log10(1 + count) / most
        if count:
            colour = _BLUE if tensor.low <= start + wide / 2 <= tensor.high else _ORANGE
            box = f'x="{left + (start - first) * unit:.1f}" y="{ground - tall:.1f}" width="{max(1.0, wide * unit):.1f}"'
            drawn.append(f'<rect {box} height="{tall:.1f}" fill="{colour}"/>\n')
    drawn += [f'<path d="M{end:.1f} {top}V{ground + 4}" stroke="{_INK}"/>\n' for end in ends]
    return "".join(drawn)


def _text(left: float, bottom: float, text: str, size: int, colour: str) -> str:
    return f'<text x="{left}" y="{bottom}" font-size="{size}" fill="{colour}">{escape(visible(text))}</text>\n'


def show_sensitivity(sensitivity: Sensitivity, console: Console) -> None:
    """Print the table with one row per layer, and the ratios that are proposed."""
    unfold(console)
    ratios = sorted({point.ratio for curve in sensitivity.curves for point in curve.points})
    headings = ("layer", _pruned(sensitivity), *(f"{ratio:.1%}" for ratio in ratios), "proposal")
    table = plain_table(headings, left=("layer",), gap=3, fold=True)
    for curve in sensitivity.curves:
        drops = {point.ratio: points_text(sensitivity.accuracy - point.accuracy) for point in curve.points}
        best = sensitivity.proposal.get(curve.layer)
        cells = [drops.get(ratio, "") for ratio in ratios]
        table.add_row(shown(_name(curve)), f"{curve.whole:,}", *cells, "-" if best is None else f"{best:.1%}")
    console.print(shown(_summary(sensitivity)))
    console.print(table)
    print_lines(console, _notes(sensitivity))


def _summary(sensitivity: Sensitivity) -> str:
    """Return the line that explains the figures of the table."""
    accuracy, images = percent_text(sensitivity.accuracy), f"{sensitivity.images:,}"
    return (
        f"{sensitivity.model}  {accuracy} right on {images} validation images of {sensitivity.origin}, seed "
        f"{sensitivity.seed}; drop in pp when a share of one layer is pruned ({_method(sensitivity)}), before "
        "fine-tuning"
    )


def _notes(sensitivity: Sensitivity) -> list[str]:
    """Return the lines below the table: the accuracy after the proposal, and which layers cannot be pruned."""
    from toolchain.compress.prune.graph import by_reason

    lines = list(sensitivity.history)
    if sensitivity.refused:
        lines.append(f"cannot be pruned: {by_reason(sensitivity.refused)}")
    limit = f"{sensitivity.tolerance * 100:g} pp"
    if sensitivity.together is None:
        return [*lines, f"an eighth of any layer costs more than {limit}; raise --tolerance"]
    drop = points_text(sensitivity.accuracy - sensitivity.together.accuracy)
    size = f", {sensitivity.together.parameters:,} parameters left" if sensitivity.method == "structured" else ""
    return [*lines, f"proposal: each layer alone within {limit}; all at once {drop} pp before fine-tuning{size}"]


def _name(curve: Curve) -> str:
    return curve.layer if not curve.tied else f"{curve.layer} (with {', '.join(curve.tied)})"


def sensitivity_svg(sensitivity: Sensitivity) -> str:
    """Return the curves as an SVG picture; a dashed line marks the tolerance, a ring the proposed ratio."""
    shares = [point.accuracy for curve in sensitivity.curves for point in curve.points]
    floor = min(0.9, int(10 * min([sensitivity.accuracy - sensitivity.tolerance, *shares])) / 10)
    rows = -(-len(sensitivity.curves) // _CHARTS)
    width, height = _CHARTS * _CHART_WIDTH, _TOP + rows * _CHART_HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="{_PAPER}"/>',
        _label(
            16, 24, f"{sensitivity.model}: accuracy when a share of one layer goes, before fine-tuning", _INK, size=15
        ),
        _label(16, 44, _legend(sensitivity), _QUIET),
    ]
    for index, curve in enumerate(sensitivity.curves):
        row, column = divmod(index, _CHARTS)
        parts.append(f'<g transform="translate({column * _CHART_WIDTH} {_TOP + row * _CHART_HEIGHT})">')
        parts += [*_chart(sensitivity, curve, floor), "</g>"]
    return "\n".join([*parts, "</svg>\n"])


def _legend(sensitivity: Sensitivity) -> str:
    tolerance, accuracy = f"{sensitivity.tolerance * 100:g} pp", percent_text(sensitivity.accuracy)
    return (
        f"{sensitivity.images:,} validation images of {sensitivity.origin}, {_method(sensitivity)}; dashed: "
        f"{tolerance} below the {accuracy} of the whole model; ring: proposed"
    )


def _method(sensitivity: Sensitivity) -> str:
    return f"structured, {sensitivity.importance}" if sensitivity.method == "structured" else "magnitude"


def _pruned(sensitivity: Sensitivity) -> str:
    return "channels" if sensitivity.method == "structured" else "weights"


def _chart(sensitivity: Sensitivity, curve: Curve, floor: float) -> list[str]:
    """Return the chart of one layer: x is the pruned share, y the accuracy from `floor` to 1."""
    width, height = _CHART_WIDTH - _LEFT - _RIGHT, _CHART_HEIGHT - _ABOVE - _BELOW

    def position(share: float, accuracy: float) -> tuple[float, float]:
        return round(_LEFT + share * width, 1), round(_ABOVE + (1 - accuracy) / (1 - floor) * height, 1)

    def position_of(point: SensitivityPoint) -> tuple[float, float]:
        # The share that was really pruned: channels go in multiples of 8, so it is not always the ratio.
        return position(1 - point.left / curve.whole, point.accuracy)

    bottom, limit = _ABOVE + height, position(0, sensitivity.accuracy - sensitivity.tolerance)[1]
    track = [position(0, sensitivity.accuracy), *(position_of(point) for point in curve.points)]
    parts = [
        _label(_LEFT, 14, _shortened(curve.layer, 30, 29), _INK, size=12),
        _label(_LEFT, 29, f"{curve.whole:,} {_pruned(sensitivity)}", _QUIET),
        f'<path d="M{_LEFT} {_ABOVE}V{bottom}H{_LEFT + width}" fill="none" stroke="#8c8c8c"/>',
        f'<path d="M{_LEFT} {limit}H{_LEFT + width}" stroke="{_ORANGE}" stroke-dasharray="4 3"/>',
        f'<polyline points="{" ".join(f"{x},{y}" for x, y in track)}" fill="none" stroke="{_BLUE}" stroke-width="2"/>',
        *(f'<circle cx="{x}" cy="{y}" r="2.5" fill="{_BLUE}"/>' for x, y in track),
        *(
            _label(_LEFT - 5, y + 4, f"{share:.0%}", _QUIET, anchor="end")
            for share, y in ((1.0, _ABOVE), (floor, bottom))
        ),
        *(
            _label(_LEFT + ratio * width, bottom + 15, f"{ratio:.0%}", _QUIET, anchor="middle")
            for ratio in (0.0, 0.5, 1.0)
        ),
    ]
    if (best := sensitivity.proposal.get(curve.layer)) is not None:
        x, y = next(position_of(point) for point in curve.points if point.ratio == best)
        parts.append(f'<circle cx="{x}" cy="{y}" r="6" fill="none" stroke="{_INK}" stroke-width="1.5"/>')
    return parts


_CURVE_WIDTH, _CURVE_HEIGHT = 430, 270
"""The picture of a training: pixels of each of its two charts."""
_CURVE_STYLES = {"training": (_BLUE, ""), "held out": (_ORANGE, "6 3")}
"""Colour and dashes of the curves."""


def training_svg(title: str, epochs: Sequence[EpochFigures]) -> str:
    """Return the curves of a training as an SVG picture: its losses, and its accuracy on held-out images."""
    width, height = 2 * _CURVE_WIDTH, 44 + _CURVE_HEIGHT
    accuracies = [figures.held_out_accuracy for figures in epochs]
    losses: dict[str, list[float | None]] = {
        "training": [figures.loss for figures in epochs],
        "held out": [each.held_out_loss for each in epochs],
    }
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">',
            f'<rect width="{width}" height="{height}" fill="{_PAPER}"/>',
            _label(16, 26, _shortened(title, 110, 109), _INK, size=15),
            '<g transform="translate(0 44)">',
            *_curves("loss", losses, lambda value: f"{value:.3g}"),
            f'</g><g transform="translate({_CURVE_WIDTH} 44)">',
            *_curves("accuracy on held-out images", {"held out": accuracies}, lambda value: f"{value:.1%}"),
            "</g></svg>\n",
        ]
    )


def _curves(title: str, curves: dict[str, list[float | None]], text: Callable[[float], str]) -> list[str]:
    """Return a chart of values by epoch, from the lowest to the highest, with the last value beside each curve."""
    right, bottom = _CURVE_WIDTH - 110, _CURVE_HEIGHT - _BELOW
    parts = [
        _label(_LEFT, 18, title, _INK, size=12),
        f'<path d="M{_LEFT} {_ABOVE}V{bottom}H{right}" fill="none" stroke="#8c8c8c"/>',
    ]
    values = [value for curve in curves.values() for value in curve if value is not None]
    if not values:
        return [*parts, _label(_LEFT + 12, _ABOVE + 24, "none was measured", _QUIET)]
    low, high, count = min(values), max(values), len(next(iter(curves.values())))

    def position(epoch: int, value: float) -> tuple[float, float]:
        across = (epoch - 1) / max(count - 1, 1)
        return round(_LEFT + across * (right - _LEFT), 1), round(
            bottom - (value - low) / ((high - low) or 1) * (bottom - _ABOVE), 1
        )

    parts += [
        *(_label(_LEFT - 5, position(1, end)[1] + 4, text(end), _QUIET, anchor="end") for end in sorted({low, high})),
        *(
            _label(position(epoch, low)[0], bottom + 15, f"epoch {epoch}", _QUIET, anchor="middle")
            for epoch in sorted({1, count})
        ),
    ]
    names = {}
    for name, curve in curves.items():
        colour, dashes = _CURVE_STYLES[name]
        track = [position(epoch, value) for epoch, value in enumerate(curve, start=1) if value is not None]
        if track:
            points = " ".join(f"{x},{y}" for x, y in track)
            style = f'stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"'
            parts.append(f'<polyline points="{points}" fill="none" {style}/>')
            parts.append(f'<circle cx="{track[-1][0]}" cy="{track[-1][1]}" r="3" fill="{colour}"/>')
            last = next(value for value in reversed(curve) if value is not None)
            names[f"{name} {text(last)}"] = (track[-1][1] + 4, colour)
    # Two names at nearly the same height would cover each other.
    below = 0.0
    for name, (y, colour) in sorted(names.items(), key=lambda item: item[1]):
        below = max(y, below + 14)
        parts.append(_label(right + 8, below, name, colour))
    return parts


def _shortened(name: str, longest: int, tail: int) -> str:
    """Return a name, or its last `tail` characters if it is too long: they distinguish a layer from its neighbours."""
    return name if len(name) <= longest else f"…{name[-tail:]}"


def _label(x: float, y: float, text: str, colour: str, *, anchor: str = "start", size: int = 11) -> str:
    attributes = f'x="{x:g}" y="{y:g}" fill="{colour}" font-size="{size}" text-anchor="{anchor}"'
    return f"<text {attributes}>{escape(visible(text))}</text>"

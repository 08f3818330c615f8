"""Pictures in files of their own (SVG), with their tables: ranges of tensors, sensitivity of layers, trainings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from targets.host.text import one_line
from toolchain.core.errors import UsageProblem
from toolchain.core.files import write_whole
from toolchain.core.quantities import counted, percent_text, points_text
from toolchain.quantize.ranges import Ranges, read_ranges
from toolchain.report.charts.histogram import clipped_text, ranges_svg, ranges_title
from toolchain.report.charts.svg import BLUE, INK, ORANGE, Drawing, Scale
from toolchain.report.charts.text import shortened
from toolchain.report.charts.units import percent_tick
from toolchain.report.tables import plain_table, print_lines, shown, unbroken, unfold

if TYPE_CHECKING:
    from toolchain.compress.prune.sensitivity import Curve, Sensitivity, SensitivityPoint
    from toolchain.training.log import EpochFigures

_RANGES_WIDTH = 996
"""Three histograms in a row; all widths and heights are pixels."""
_TOP = 64
"""Height of a picture's title and legend."""
_CHARTS, _CHART_WIDTH, _CHART_HEIGHT = 4, 250, 190
"""The picture of sensitivity: charts in a row."""
_LEFT, _RIGHT, _ABOVE, _BELOW = 46, 22, 40, 34
"""Between the border of a chart and its axes."""
_SMALL = 11


def ranges_picture(path: Path, output: Path | None = None, *, force: bool = False) -> Ranges:
    """Read a file of ranges, draw it into `output` (.svg) if that is given, and return the ranges.

    Raises UsageProblem for another suffix or an existing file, and what `read_ranges` raises.
    """
    ranges = read_ranges(path)
    if output is not None:
        if output.suffix != ".svg":
            raise UsageProblem(f"{output}: ranges are drawn as .svg, which every browser shows; name it so")
        write_whole(output, ranges_svg(ranges, most=None, width=_RANGES_WIDTH, standalone=True), force=force)
    return ranges


def ranges_text(ranges: Ranges, *, colour: bool = False) -> str:
    """Return a table with one row per tensor, and where the ranges come from."""
    table = plain_table(("tensor", "low", "high", "lowest", "highest", "clipped"), left=("tensor",))
    for tensor in ranges.tensors:
        ends = (tensor.low, tensor.high, tensor.lowest, tensor.highest)
        table.add_row(shown(tensor.title), *(f"{end:.4g}" for end in ends), clipped_text(tensor))
    drawn = f"{ranges.calibration.get('images')} images of {ranges.calibration.get('origin')}"
    return f"{unbroken(table, colour=colour)}\n{one_line(f'{ranges_title(ranges)}, {drawn}')}"


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
    drawing = Drawing(_CHARTS * _CHART_WIDTH)
    title = f"{sensitivity.model}: accuracy when a share of one layer goes, before fine-tuning"
    drawing.text(16, 24, title, INK, size=15)
    drawing.text(16, 44, _legend(sensitivity), size=_SMALL)
    for index, curve in enumerate(sensitivity.curves):
        row, column = divmod(index, _CHARTS)
        with drawing.group(transform=f"translate({column * _CHART_WIDTH} {_TOP + row * _CHART_HEIGHT})"):
            _chart(drawing, sensitivity, curve, floor)
    return drawing.svg(_TOP + rows * _CHART_HEIGHT, title, _legend(sensitivity), standalone=True)


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


def _chart(drawing: Drawing, sensitivity: Sensitivity, curve: Curve, floor: float) -> None:
    """Draw the chart of one layer: x is the pruned share, y the accuracy from `floor` to 1."""
    across = Scale(0, 1, _LEFT, _CHART_WIDTH - _RIGHT)
    up = Scale(floor, 1, _CHART_HEIGHT - _BELOW, _ABOVE)

    def position_of(point: SensitivityPoint) -> tuple[float, float]:
        # The share that was really pruned: channels go in multiples of 8, so it is not always the ratio.
        return across(1 - point.left / curve.whole), up(point.accuracy)

    drawing.text(_LEFT, 14, shortened(curve.layer, _CHART_WIDTH - _LEFT), INK)
    drawing.text(_LEFT, 29, f"{curve.whole:,} {_pruned(sensitivity)}", size=_SMALL)
    drawing.y_axis(up, _LEFT, percent_tick, most=3)
    drawing.x_axis(across, up.start, percent_tick, most=3)
    limit = up(sensitivity.accuracy - sensitivity.tolerance)
    drawing.line((across.start, limit), (across.end, limit), ORANGE, dashes="4 3")
    track = [(across(0), up(sensitivity.accuracy)), *(position_of(point) for point in curve.points)]
    drawing.curve(track, BLUE)
    for x, y in track:
        drawing.add("circle", cx=x, cy=y, r=2.5, fill=BLUE)
    if (best := sensitivity.proposal.get(curve.layer)) is not None:
        x, y = next(position_of(point) for point in curve.points if point.ratio == best)
        drawing.add("circle", cx=x, cy=y, r=6, fill="none", stroke=INK, stroke_width=1.5)


_CURVE_WIDTH, _CURVE_HEIGHT = 430, 270
"""The picture of a training: each of its two charts."""
_CURVE_STYLES = {"training": (BLUE, ""), "held out": (ORANGE, "6 3")}
"""Colour and dashes of the curves."""


def training_svg(title: str, epochs: Sequence[EpochFigures]) -> str:
    """Return the curves of a training as an SVG picture: its losses, and its accuracy on held-out images."""
    drawing = Drawing(2 * _CURVE_WIDTH)
    accuracies = [figures.held_out_accuracy for figures in epochs]
    losses: dict[str, list[float | None]] = {
        "training": [figures.loss for figures in epochs],
        "held out": [each.held_out_loss for each in epochs],
    }
    drawing.text(16, 26, shortened(title, drawing.width - 32, 15), INK, size=15)
    with drawing.group(transform="translate(0 44)"):
        _curves(drawing, "loss", losses, "{:.3g}".format)
    with drawing.group(transform=f"translate({_CURVE_WIDTH} 44)"):
        _curves(drawing, "accuracy on held-out images", {"held out": accuracies}, "{:.1%}".format)
    description = f"Loss and accuracy on held-out images after each of {counted(len(epochs), 'epoch')}."
    return drawing.svg(44 + _CURVE_HEIGHT, title, description, standalone=True)


def _curves(drawing: Drawing, title: str, curves: dict[str, list[float | None]], text: Callable[[float], str]) -> None:
    """Draw a chart of values by epoch, from the lowest to the highest, with the last value beside each curve."""
    right, bottom = _CURVE_WIDTH - 110, _CURVE_HEIGHT - _BELOW
    drawing.text(_LEFT, 18, title, INK)
    values = [value for curve in curves.values() for value in curve if value is not None]
    if not values:
        drawing.text(_LEFT + 12, _ABOVE + 24, "none was measured", size=_SMALL)
        return
    count = len(next(iter(curves.values())))
    across = Scale(1, max(count, 2), _LEFT, right)
    up = Scale.around(values, bottom, _ABOVE, room=0)
    for end in sorted({min(values), max(values)}):
        drawing.text(_LEFT - 5, up(end) + 4, text(end), size=_SMALL, anchor="end")
    for epoch in sorted({1, count}):
        drawing.text(across(epoch), bottom + 15, f"epoch {epoch}", size=_SMALL, anchor="middle")
    drawing.path(f"M{_LEFT} {_ABOVE}V{bottom}H{right}")
    names = {}
    for name, curve in curves.items():
        colour, dashes = _CURVE_STYLES[name]
        track = [(across(epoch), up(value)) for epoch, value in enumerate(curve, start=1) if value is not None]
        if track:
            drawing.curve(track, colour, dashes=dashes)
            drawing.add("circle", cx=track[-1][0], cy=track[-1][1], r=3, fill=colour)
            last = next(value for value in reversed(curve) if value is not None)
            names[f"{name} {text(last)}"] = (track[-1][1] + 4, colour)
    # Two names at nearly the same height would cover each other.
    below = 0.0
    for name, (y, colour) in sorted(names.items(), key=lambda item: item[1]):
        below = max(y, below + 14)
        drawing.text(right + 8, below, name, colour, size=_SMALL)

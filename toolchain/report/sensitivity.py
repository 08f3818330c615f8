"""How sensitive layers are to pruning: as a table, and as a picture with a chart per layer on the same axes."""

from __future__ import annotations

from xml.sax.saxutils import escape

from rich.console import Console

from targets.host.text import visible
from toolchain.compress.prune.graph import by_reason
from toolchain.compress.prune.sensitivity import Curve, Sensitivity, SensitivityPoint
from toolchain.core.quantities import percent_text, points_text
from toolchain.report.terminal import plain_table, shown, unfold

_INK, _QUIET, _LINE, _LIMIT = "#1a1a1a", "#595959", "#0072B2", "#D55E00"
_COLUMNS, _WIDTH, _HEIGHT, _TOP = 4, 250, 190, 64
_LEFT, _RIGHT, _ABOVE, _BELOW = 46, 22, 40, 34


def show_sensitivity(sensitivity: Sensitivity, console: Console) -> None:
    """Print the table with one row per layer, and the ratios that are proposed."""
    unfold(console)
    ratios = sorted({point.ratio for curve in sensitivity.curves for point in curve.points})
    what = "channels" if sensitivity.method == "structured" else "weights"
    table = plain_table(
        ("layer", what, *(f"{ratio:.1%}" for ratio in ratios), "proposal"), left=("layer",), gap=3, fold=True
    )
    for curve in sensitivity.curves:
        drops = {point.ratio: points_text(sensitivity.accuracy - point.accuracy) for point in curve.points}
        best = sensitivity.proposal.get(curve.layer)
        cells = [drops.get(ratio, "") for ratio in ratios]
        table.add_row(shown(_name(curve)), f"{curve.whole:,}", *cells, "-" if best is None else f"{best:.1%}")
    console.print(shown(summary(sensitivity)))
    console.print(table)
    for line in notes(sensitivity):
        console.print(shown(line))


def summary(sensitivity: Sensitivity) -> str:
    """Return the line that explains the figures of the table."""
    accuracy, images = percent_text(sensitivity.accuracy), f"{sensitivity.images:,}"
    return (
        f"{sensitivity.model}  {accuracy} right on {images} validation images of {sensitivity.origin}, seed "
        f"{sensitivity.seed}; drop in pp when a share of one layer is pruned ({_method(sensitivity)}), before "
        "fine-tuning"
    )


def notes(sensitivity: Sensitivity) -> list[str]:
    """Return the lines below the table: the accuracy after the proposal, and which layers cannot be pruned."""
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


def plot(sensitivity: Sensitivity) -> str:
    """Return the curves as an SVG picture; a dashed line marks the tolerance, a ring the proposed ratio."""
    shares = [point.accuracy for curve in sensitivity.curves for point in curve.points]
    floor = min(0.9, int(10 * min([sensitivity.accuracy - sensitivity.tolerance, *shares])) / 10)
    rows = -(-len(sensitivity.curves) // _COLUMNS)
    width, height = _COLUMNS * _WIDTH, _TOP + rows * _HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        _text(
            16, 24, f"{sensitivity.model}: accuracy when a share of one layer goes, before fine-tuning", _INK, size=15
        ),
        _text(16, 44, _legend(sensitivity), _QUIET),
    ]
    for index, curve in enumerate(sensitivity.curves):
        row, column = divmod(index, _COLUMNS)
        parts.append(f'<g transform="translate({column * _WIDTH} {_TOP + row * _HEIGHT})">')
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


def _chart(sensitivity: Sensitivity, curve: Curve, floor: float) -> list[str]:
    """Return the chart of one layer: x is the pruned share, y the accuracy from `floor` to 1."""
    wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _ABOVE - _BELOW

    def position(share: float, accuracy: float) -> tuple[float, float]:
        return round(_LEFT + share * wide, 1), round(_ABOVE + (1 - accuracy) / (1 - floor) * high, 1)

    def position_of(point: SensitivityPoint) -> tuple[float, float]:
        # The share that was really pruned: channels go in multiples of 8, so it is not always the ratio.
        return position(1 - point.left / curve.whole, point.accuracy)

    bottom, limit = _ABOVE + high, position(0, sensitivity.accuracy - sensitivity.tolerance)[1]
    track = [position(0, sensitivity.accuracy), *(position_of(point) for point in curve.points)]
    what = "channels" if sensitivity.method == "structured" else "weights"
    parts = [
        _text(_LEFT, 14, _short(curve.layer), _INK, size=12),
        _text(_LEFT, 29, f"{curve.whole:,} {what}", _QUIET),
        f'<path d="M{_LEFT} {_ABOVE}V{bottom}H{_LEFT + wide}" fill="none" stroke="#8c8c8c"/>',
        f'<path d="M{_LEFT} {limit}H{_LEFT + wide}" stroke="{_LIMIT}" stroke-dasharray="4 3"/>',
        f'<polyline points="{" ".join(f"{x},{y}" for x, y in track)}" fill="none" stroke="{_LINE}" stroke-width="2"/>',
        *(f'<circle cx="{x}" cy="{y}" r="2.5" fill="{_LINE}"/>' for x, y in track),
        *(
            _text(_LEFT - 5, y + 4, f"{share:.0%}", _QUIET, anchor="end")
            for share, y in ((1.0, _ABOVE), (floor, bottom))
        ),
        *(
            _text(_LEFT + ratio * wide, bottom + 15, f"{ratio:.0%}", _QUIET, anchor="middle")
            for ratio in (0.0, 0.5, 1.0)
        ),
    ]
    if (best := sensitivity.proposal.get(curve.layer)) is not None:
        x, y = next(position_of(point) for point in curve.points if point.ratio == best)
        parts.append(f'<circle cx="{x}" cy="{y}" r="6" fill="none" stroke="{_INK}" stroke-width="1.5"/>')
    return parts


def _short(name: str, most: int = 30) -> str:
    # The end of a layer's path is what distinguishes it from its neighbours.
    return name if len(name) <= most else "…" + name[1 - most :]


def _text(x: float, y: float, text: str, colour: str, *, anchor: str = "start", size: int = 11) -> str:
    attributes = f'x="{x:g}" y="{y:g}" fill="{colour}" font-size="{size}" text-anchor="{anchor}"'
    return f"<text {attributes}>{escape(visible(text))}</text>"

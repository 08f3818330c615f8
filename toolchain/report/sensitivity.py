"""A Sensitivity as a table, and as a picture: one small chart a layer, all on the same axes."""

from __future__ import annotations

from xml.sax.saxutils import escape

from rich.console import Console

from toolchain.compress.prune.graph import by_reason
from toolchain.compress.prune.sensitivity import Curve, Sensitivity, SensitivityPoint
from toolchain.core.quantities import percent_text, points_text
from toolchain.core.visible import shown, visible
from toolchain.report.terminal import plain_table, unfold

_INK, _QUIET, _LINE, _LIMIT = "#1a1a1a", "#595959", "#0072B2", "#D55E00"
_COLUMNS, _WIDTH, _HEIGHT, _TOP = 4, 250, 190, 64
_LEFT, _RIGHT, _ABOVE, _BELOW = 46, 22, 40, 34


def show_sensitivity(found: Sensitivity, console: Console) -> None:
    """Print the table, a line a layer, and what is proposed."""
    unfold(console)
    ratios = sorted({point.ratio for curve in found.curves for point in curve.points})
    what = "channels" if found.method == "structured" else "weights"
    table = plain_table(
        ("layer", what, *(f"{ratio:.1%}" for ratio in ratios), "proposal"), left=("layer",), gap=3, fold=True
    )
    for curve in found.curves:
        drops = {point.ratio: points_text(found.accuracy - point.accuracy) for point in curve.points}
        best = found.proposal.get(curve.layer)
        cells = [drops.get(ratio, "") for ratio in ratios]
        table.add_row(shown(_name(curve)), f"{curve.whole:,}", *cells, "-" if best is None else f"{best:.1%}")
    console.print(shown(summary(found)))
    console.print(table)
    for line in notes(found):
        console.print(shown(line))


def summary(found: Sensitivity) -> str:
    """Return what the figures of the table are."""
    by = f"structured, {found.importance}" if found.method == "structured" else "magnitude"
    return (
        f"{found.model}  {percent_text(found.accuracy)} right on {found.images:,} validation images of {found.origin}, "
        f"seed {found.seed}; fall in pp when a share of one layer goes ({by}), before fine-tuning"
    )


def notes(found: Sensitivity) -> list[str]:
    """Return the lines below the table: what the proposal does, and which layers cannot be pruned."""
    lines = [*found.history, *([f"cannot be pruned: {by_reason(found.refused)}"] if found.refused else [])]
    limit = f"{found.tolerance * 100:g} pp"
    if found.together is None:
        return [*lines, f"no layer can lose an eighth within {limit}; raise --tolerance"]
    fall = points_text(found.accuracy - found.together.accuracy)
    size = f", {found.together.parameters:,} parameters left" if found.method == "structured" else ""
    return [*lines, f"proposal: each layer alone within {limit}; all at once {fall} pp before fine-tuning{size}"]


def _name(curve: Curve) -> str:
    return curve.layer if not curve.tied else f"{curve.layer} (with {', '.join(curve.tied)})"


def plot(found: Sensitivity) -> str:
    """Return the curves as an SVG picture; the dashed line is the tolerance, the ring what is proposed."""
    shares = [point.accuracy for curve in found.curves for point in curve.points]
    floor = min(0.9, int(10 * min([found.accuracy - found.tolerance, *shares])) / 10)
    rows = -(-len(found.curves) // _COLUMNS)
    width, height = _COLUMNS * _WIDTH, _TOP + rows * _HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        _text(16, 24, f"{found.model}: accuracy when a share of one layer goes, before fine-tuning", _INK, size=15),
        _text(16, 44, _legend(found), _QUIET),
    ]
    for place, curve in enumerate(found.curves):
        row, column = divmod(place, _COLUMNS)
        parts.append(f'<g transform="translate({column * _WIDTH} {_TOP + row * _HEIGHT})">')
        parts += [*_chart(found, curve, floor), "</g>"]
    return "\n".join([*parts, "</svg>\n"])


def _legend(found: Sensitivity) -> str:
    by = f"structured, {found.importance}" if found.method == "structured" else "magnitude"
    return (
        f"{found.images:,} validation images of {found.origin}, {by}; dashed: {found.tolerance * 100:g} pp below the "
        f"{percent_text(found.accuracy)} of the whole model; ring: proposed"
    )


def _chart(found: Sensitivity, curve: Curve, floor: float) -> list[str]:
    """Return one layer's chart: share gone from left to right, accuracy from the floor to 1."""
    wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _ABOVE - _BELOW

    def spot(share: float, right: float) -> tuple[float, float]:
        return round(_LEFT + share * wide, 1), round(_ABOVE + (1 - right) / (1 - floor) * high, 1)

    def of(point: SensitivityPoint) -> tuple[float, float]:
        # What is really gone: channels in multiples of 8 are not always the ratio.
        return spot(1 - point.left / curve.whole, point.accuracy)

    bottom, limit = _ABOVE + high, spot(0, found.accuracy - found.tolerance)[1]
    track = [spot(0, found.accuracy), *(of(point) for point in curve.points)]
    what = "channels" if found.method == "structured" else "weights"
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
    if (best := found.proposal.get(curve.layer)) is not None:
        x, y = next(of(point) for point in curve.points if point.ratio == best)
        parts.append(f'<circle cx="{x}" cy="{y}" r="6" fill="none" stroke="{_INK}" stroke-width="1.5"/>')
    return parts


def _short(words: str, most: int = 30) -> str:
    # The end of a layer's path is what tells it from its neighbours.
    return words if len(words) <= most else "…" + words[1 - most :]


def _text(x: float, y: float, words: str, colour: str, *, anchor: str = "start", size: int = 11) -> str:
    place = f'x="{x:g}" y="{y:g}" fill="{colour}" font-size="{size}" text-anchor="{anchor}"'
    return f"<text {place}>{escape(visible(words))}</text>"

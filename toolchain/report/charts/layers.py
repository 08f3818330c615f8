"""Bars by layer: the quantization error of each, from the worst on, and the time of each operator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from targets.session import Operator
from toolchain.core.quantities import counted, time_text
from toolchain.explain.explanation import LayerError
from toolchain.report.charts.svg import INK, OTHER, QUIET, WIDTH, Area, Drawing, Scale
from toolchain.report.charts.text import fitted, text_width
from toolchain.report.charts.units import listed, time_tick

_ROW = 19
_SIZE = 11


@dataclass(frozen=True)
class _Bar:
    """A row: its name, the value that its bar ends at, the text behind it, and what a pointer on it shows.

    second: another value, marked by a line across the bar.
    """

    name: str
    value: float
    text: str
    note: str
    second: float | None = None


def layer_error_svg(layers: Sequence[LayerError], *, most: int = 15, width: int = WIDTH) -> str:
    """Return the ratio of signal to quantization noise (SQNR) of each layer in dB, the worst first; less is worse.

    layers: of `Explanation`. Layers without an error (float ones) are only counted. most: rows at the most.
    """
    drawing = Drawing(width)
    title = "Quantization error by layer"
    erring = [(layer.alone.sqnr_db, layer) for layer in layers if layer.alone.sqnr_db is not None]
    exact = len(layers) - len(erring)
    if not erring:
        text = "No layer has a quantization error that could be measured."
        return drawing.svg(drawing.paragraph(0, 16, text), title, text)
    erring.sort(key=lambda pair: pair[0])
    bars = [
        _Bar(layer.layer, alone, f"{alone:.1f} dB", _layer_note(layer, alone), layer.whole.sqnr_db)
        for alone, layer in erring[:most]
    ]
    y = drawing.paragraph(0, 14, "Signal to quantization noise in dB; short bars are worse")
    y = _bars(drawing, bars, y, "dB", "{:g}".format)
    y = _legend(drawing, y, second=any(bar.second is not None for bar in bars))
    if more := len(erring) - len(bars):
        y = drawing.paragraph(0, y, f"{counted(more, 'layer')} with a smaller error.")
    if exact:
        y = drawing.paragraph(0, y, f"{counted(exact, 'layer')} without an error: float, or exact.")
    worst = listed([f"{layer.layer} with {alone:.1f} dB" for alone, layer in erring])
    return drawing.svg(
        y - 6, title, f"SQNR of {counted(len(erring), 'quantized layer')}, each alone, the worst first: {worst}."
    )


def _layer_note(layer: LayerError, alone: float) -> str:
    whole = layer.whole.sqnr_db
    parts = [f"{layer.layer}: {layer.operator}, weights {layer.weights}, alone {alone:.1f} dB"]
    if whole is not None:
        parts.append(f"with the layers before it {whole:.1f} dB")
    if layer.alone.saturated:
        parts.append(f"{layer.alone.saturated:.2%} of its values are clipped")
    return ", ".join(parts)


def _legend(drawing: Drawing, y: float, *, second: bool) -> float:
    def bar(x: float, y: float) -> None:
        drawing.rect(Area(x - 8, y - 5, x + 8, y + 5), OTHER)

    def line(x: float, y: float) -> None:
        drawing.line((x, y - 7), (x, y + 7), INK, width=2)

    entries = [(bar, "the layer alone")]
    return drawing.legend([*entries, (line, "with all layers before it")] if second else entries, 0, y)


def operator_time_svg(operators: Sequence[Operator], *, most: int = 15, width: int = WIDTH) -> str:
    """Return the time of each operator and its share of all, the slowest first.

    operators: with nanoseconds of an inference (`Breakdown.operators`). Those of one name are one row together, and so
    are all that are not among the `most` slowest.
    """
    drawing = Drawing(width)
    title = "Time by operator"
    total = sum(operator.ns for operator in operators)
    if not operators or total <= 0:
        text = "No operator has a measured time." if operators else "No operator was timed."
        return drawing.svg(drawing.paragraph(0, 16, text), title, text)
    slowest = sorted(_by_name(operators).items(), key=lambda pair: -pair[1])
    bars = [_time_bar(name, ns, total) for name, ns in slowest[:most]]
    if rest := slowest[most:]:
        bars.append(_time_bar(counted(len(rest), "other"), sum(ns for _, ns in rest), total))
    y = drawing.paragraph(0, 14, f"{time_text(total / 1e9)} in all; the runtime's profiler counts whole microseconds")
    y = _bars(drawing, bars, y, "", time_tick)
    first = listed([bar.note for bar in bars])
    return drawing.svg(
        y - 6,
        title,
        f"{counted(len(operators), 'operator')}, {time_text(total / 1e9)} in all, the slowest first: {first}.",
    )


def _by_name(operators: Sequence[Operator]) -> dict[str, float]:
    """Return nanoseconds by what is shown of an operator; those that the runtime added are one for each kernel."""
    names = [f"{one.layer} ({one.kernel})" if one.layer else one.kernel for one in operators]
    counts, times = Counter(names), dict.fromkeys(names, 0.0)
    for name, operator in zip(names, operators, strict=True):
        times[name] += operator.ns
    return {name if counts[name] == 1 else f"{name} x {counts[name]}": ns for name, ns in times.items()}


def _time_bar(name: str, ns: float, total: float) -> _Bar:
    time = time_text(ns / 1e9) if ns else "0"
    text = f"{time}, {ns / total:.0%}".replace("%", " %")
    return _Bar(name, ns, text, f"{name} {text}")


def _bars(drawing: Drawing, bars: Sequence[_Bar], y: float, unit: str, tick: Callable[[float], str]) -> float:
    """Draw a row for each bar and an axis below them; returns the baseline of the line after it."""
    room = min(max(text_width(bar.name, _SIZE) for bar in bars) + 8, 0.4 * drawing.width)
    behind = max(text_width(bar.text, _SIZE) for bar in bars) + 6
    values = [value for bar in bars for value in (bar.value, bar.second) if value is not None]
    low, high = min(0.0, *values), max(0.0, *values) or 1.0
    scale = Scale(low, high, room, drawing.width - behind)
    bottom = y + _ROW * len(bars)
    drawing.x_axis(scale, bottom, lambda value: f"{tick(value)} {unit}".strip(), top=y - 8, most=4)
    names = fitted([bar.name for bar in bars], room - 8, _SIZE)
    for index, (bar, name) in enumerate(zip(bars, names, strict=True)):
        middle = y + 2 + _ROW * index
        drawing.text(0, middle + 4, name, INK, size=_SIZE)
        ends = sorted((scale(0.0), scale(bar.value)))
        with drawing.group(bar.note):
            drawing.rect(Area(ends[0], middle - 6, max(ends[1], ends[0] + 1), middle + 6), OTHER)
            if bar.second is not None:
                x = scale(bar.second)
                drawing.line((x, middle - 8), (x, middle + 8), INK, width=2)
        drawing.text(drawing.width, middle + 4, bar.text, INK, size=_SIZE, anchor="end")
    drawing.line((scale(0.0), y - 8), (scale(0.0), bottom), QUIET)
    return bottom + 36

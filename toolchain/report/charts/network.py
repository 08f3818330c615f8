"""Drawing of a network: its layers as boxes with their shapes, types and times, joined as their results flow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from targets.artifact import Artifact
from targets.session import Operator
from toolchain.core.quantities import counted, time_text
from toolchain.formats import catalog
from toolchain.formats.graph import Graph
from toolchain.report.charts.svg import INK, OTHER, PAPER, QUIET, WIDTH, Area, Drawing, number
from toolchain.report.charts.text import fitted, shortened, text_width
from toolchain.report.charts.units import listed

_SIZE, _GAP, _LANE, _TIME = 11, 12, 9, 84
"""Size of text; between boxes; between lines that pass boxes; room for the time of a layer."""
_LANES = 4
_ONE_LINE = 600
"""Units of width from which on a box has one line instead of two."""


@dataclass(frozen=True)
class Box:
    """A layer. shape: of its result for one image, None where it is not known. weights, values: dtypes.

    ns: nanoseconds of an inference, None where it was not timed. inputs: which earlier boxes it reads, by their number
    from 0; -1 is the image. None: the box before it.
    """

    name: str
    operator: str
    shape: tuple[int, ...] | None
    weights: str
    values: str
    ns: float | None = None
    inputs: tuple[int, ...] | None = None


def boxes(artifact: Artifact, operators: Sequence[Operator] = ()) -> tuple[Box, ...]:
    """Return the layers with weights of a file in the order of execution; a blank image gives their shapes.

    operators: their times (`Breakdown.operators`), by the layer's name. Raises StageError where the runtime cannot
    return the layers' results.
    """
    import numpy as np

    trace = catalog.get(artifact.format).trace(artifact)
    blank = np.zeros((max(1, trace.fixed_batch), 28, 28), np.uint8)
    results = trace.whole(artifact.preprocess.apply(blank))
    codecs, sources = trace.graph.codecs, _sources(trace.graph)
    times: dict[str, float] = {}
    for operator in operators:
        times[operator.layer] = times.get(operator.layer, 0.0) + operator.ns
    return tuple(
        Box(
            layer.name,
            layer.kind,
            tuple(results[layer.name].shape[1:]),
            layer.weights.dtype,
            str(codecs[layer.result].spec.dtype) if layer.result in codecs else "float32",
            times.get(layer.name),
            inputs,
        )
        for layer, inputs in zip(trace.graph.layers, sources, strict=True)
    )


def _sources(graph: Graph) -> list[tuple[int, ...]]:
    """Return for each layer the layers whose results reach it without passing another; -1 for the image."""
    numbers = {output: k for k, layer in enumerate(graph.layers) for output in graph.nodes[layer.node].outputs}
    found = []
    for layer in graph.layers:
        sources, seen = set(), set[str]()
        waiting = [name for name in graph.nodes[layer.node].inputs if name and name not in graph.constants]
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            if name in numbers:
                sources.add(numbers[name])
            elif name in graph.makers:
                waiting += [one for one in graph.makers[name].inputs if one and one not in graph.constants]
            else:
                sources.add(-1)
        found.append(tuple(sorted(sources)))
    return found


def network_svg(boxes: Sequence[Box], *, most: int = 40, width: int = WIDTH) -> str:
    """Return the layers from the input down to the answer.

    most: boxes at the most; of a larger network the last are only counted. width: units.
    """
    drawing = Drawing(width)
    title = "The network"
    if not boxes:
        text = "The file has no layer with weights."
        return drawing.svg(drawing.paragraph(0, 16, text), title, text)
    shown = boxes[:most]
    tall = 24 if width >= _ONE_LINE else 38
    lanes = _lanes(shown)
    left = 8 + _LANE * max(lanes.values(), default=0)
    timed = any(box.ns is not None for box in shown)
    right = width - (_TIME if timed else 1)
    areas = [Area(left, 30 + k * (tall + _GAP), right, 30 + k * (tall + _GAP) + tall) for k in range(len(shown))]
    drawing.text(left + 8, 12, "image", QUIET)
    if timed:
        drawing.text(width, 12, "time of a layer", QUIET, size=_SIZE, anchor="end")
    drawing.path(f"M{number(left + 24)} 17v11m-3-4l3 4l3-4", QUIET)
    slowest = max((box.ns for box in shown if box.ns is not None), default=0.0) or 1.0
    names = fitted([box.name for box in shown], right - left - (320 if width >= _ONE_LINE else 14), _SIZE)
    for box, name, area in zip(shown, names, areas, strict=True):
        _box(drawing, box, name, area)
        if box.ns is not None:
            _time(drawing, box.ns, slowest, area)
    _joints(drawing, shown, areas, lanes)
    y = areas[-1].bottom + 18
    if len(boxes) > most:
        y = drawing.paragraph(left, y, f"{counted(len(boxes) - most, 'layer')} more.")
    return drawing.svg(y - 8, title, _description(boxes))


def _box(drawing: Drawing, box: Box, name: str, area: Area) -> None:
    """Draw a box with the layer's name, and its operator, shape and types behind or below it."""
    shape = "x".join(map(str, box.shape)) if box.shape else "scalar" if box.shape == () else "shape not known"
    bits = f"weights {box.weights}, values {box.values}"
    with drawing.group(f"{box.name}: {box.operator}, result {shape}, {bits}"):
        # What computes in integers has a thick border, so that it is seen without colour too.
        integer = box.values.startswith(("int", "uint"))
        drawing.rect(area, PAPER, stroke=INK if integer else QUIET, stroke_width=1.8 if integer else 1, rx=4)
        types = box.weights if box.weights == box.values else f"{box.weights} weights, {box.values}"
        details = f"{box.operator}, {shape}, {types}"
        inner = area.right - area.left - 14
        one_line = area.bottom - area.top < 30
        room = inner - text_width(name, _SIZE) - 10 if one_line else inner
        drawing.text(area.left + 7, area.top + 16, name, INK, size=_SIZE)
        details = shortened(details, room, _SIZE)
        if one_line:
            drawing.text(area.right - 7, area.top + 16, details, QUIET, size=_SIZE, anchor="end")
        else:
            drawing.text(area.left + 7, area.top + 31, details, QUIET, size=_SIZE)


def _time(drawing: Drawing, ns: float, slowest: float, area: Area) -> None:
    middle, left = (area.top + area.bottom) / 2, area.right + 6
    drawing.text(drawing.width, middle, time_text(ns / 1e9) if ns else "0", INK, size=_SIZE, anchor="end")
    drawing.rect(Area(left, middle + 3, left + max(1.0, (drawing.width - left) * ns / slowest), middle + 9), OTHER)


def _reads(boxes: Sequence[Box], index: int) -> tuple[int, ...]:
    inputs = boxes[index].inputs
    return (index - 1,) if inputs is None else tuple(source for source in inputs if source < index)


def _lanes(boxes: Sequence[Box]) -> dict[tuple[int, int], int]:
    """Return the lane, from 1, of each line that passes boxes: two in one lane do not overlap, as far as lanes go."""
    passing = [(source, k) for k in range(len(boxes)) for source in _reads(boxes, k) if source < k - 1]
    lanes: dict[tuple[int, int], int] = {}
    for source, target in sorted(passing, key=lambda pair: (pair[1] - pair[0], pair)):
        taken = {lane for (a, b), lane in lanes.items() if a < target and source < b}
        lanes[source, target] = next((lane for lane in range(1, _LANES) if lane not in taken), _LANES)
    return lanes


def _joints(drawing: Drawing, boxes: Sequence[Box], areas: Sequence[Area], lanes: dict[tuple[int, int], int]) -> None:
    """Draw an arrow to the next box, and a line around the boxes that a result passes."""
    straight = around = ""
    for index in range(1, len(boxes)):
        if index - 1 in _reads(boxes, index):
            straight += f"M{number(areas[index].left + 24)} {number(areas[index - 1].bottom)}v{_GAP - 2}m-3-4l3 4l3-4"
    for (source, target), lane in lanes.items():
        start = areas[source].bottom - 6 if source >= 0 else 12
        x, end = areas[target].left - _LANE * lane, areas[target].top + 8
        around += (
            f"M{number(areas[target].left)} {number(start)}H{number(x)}V{number(end)}h{_LANE * lane - 1}m-4-3l4 3l-4 3"
        )
    if straight:
        drawing.path(straight, QUIET)
    if around:
        drawing.path(around, QUIET)


def _description(boxes: Sequence[Box]) -> str:
    integer = sum(box.values.startswith(("int", "uint")) for box in boxes)
    timed = sorted((box for box in boxes if box.ns is not None), key=lambda box: -(box.ns or 0))
    slowest = listed([f"{box.name} with {time_text((box.ns or 0) / 1e9)}" for box in timed], 2)
    times = f" The slowest are {slowest}." if timed else ""
    return (
        f"{counted(len(boxes), 'layer')} with weights in the order of execution, {integer:,} of them with integer "
        f"values (thick border).{times}"
    )

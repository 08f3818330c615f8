"""The confusion matrix of one file: how often each class was read as each other one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from toolchain.core.quantities import counted
from toolchain.evaluation.metrics import Metrics
from toolchain.report.charts.class_grid import class_grid, runs_path
from toolchain.report.charts.svg import BLUE, INK, LINE, ORANGE, QUIET, Area, Drawing, number
from toolchain.report.charts.text import shortened, text_width

_CELL = 20
"""Units of a cell where there are many classes."""
_AROUND, _BESIDE = 62, 82
"""Units for the classes' names, and for the two columns behind the cells."""
_NARROWEST = 420
_SIZE = 8.5
_OPACITIES = ("0.14", "0.26", "0.4", "0.55")
"""Faint enough for the numbers on them."""


def matrix_svg(metrics: Metrics, classes: Sequence[str], *, title: str) -> str:
    """Return the matrix as a picture in a file of its own.

    Each cell has its number of images; its colour is the share of the images of its class (the square root of it, so
    that rare mistakes are seen): blue for right answers, orange for mistakes. Behind each row stand the number of its
    images and the share that was read. classes: in the order of the matrix. title: above it.
    """
    drawing = Drawing(max(_NARROWEST, _AROUND + _BESIDE + _CELL * len(classes)))
    y = drawing.paragraph(0, 16, title, INK, size=13)
    grid, pitch = class_grid(drawing, classes, top=y - 6, beside=_BESIDE)
    _cells(drawing, metrics, grid, pitch)
    _sums(drawing, metrics, grid, pitch)
    low = _legend(drawing, grid.bottom + 20)
    for pair in metrics.confusions[:6]:
        drawing.text(0, low, shortened(f"{pair.truth} read as {pair.read}: {pair.count:,}", drawing.width), INK)
        low += 16
    return drawing.svg(low - 6, title, _description(metrics), standalone=True)


def _cells(drawing: Drawing, metrics: Metrics, grid: Area, pitch: float) -> None:
    counts = metrics.confusion
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    levels = np.ceil(len(_OPACITIES) * np.sqrt(shares)).astype(int)
    diagonal = np.eye(len(counts), dtype=bool)
    drawing.rect(grid, "none", stroke=LINE)
    place = f"translate({number(grid.left)} {number(grid.top)})scale({pitch:.4f})"
    with drawing.group(transform=place):
        for colour, chosen in ((BLUE, diagonal), (ORANGE, ~diagonal)):
            for level, opacity in enumerate(_OPACITIES, 1):
                data = runs_path(chosen & (levels == level))
                drawing.add("path", d=data, stroke=colour, stroke_width="1", stroke_opacity=opacity, fill="none")
        size = len(counts)
        edges = "".join(f"M{k} 0V{size}M0 {k}H{size}" for k in range(1, size))
        drawing.add("path", d=edges, stroke=LINE, stroke_width="0.03", fill="none")
    for row, column in np.argwhere(counts).tolist():
        text = _short(int(counts[row, column]), pitch)
        x, y = grid.left + pitch * (column + 0.5), grid.top + pitch * (row + 0.5) + 3
        drawing.text(x, y, text, INK, size=_SIZE, anchor="middle")


def _short(count: int, room: float) -> str:
    """Return a number, in thousands where it would not fit into its cell."""
    text = str(count)
    return text if text_width(text, _SIZE) <= room - 1 else f"{count / 1000:.1f}k"


def _sums(drawing: Drawing, metrics: Metrics, grid: Area, pitch: float) -> None:
    """Write the images of each class and the share that was read right, behind its row."""
    middle, end = grid.right + 34, grid.right + _BESIDE - 2
    for x, text in ((middle, "images"), (end, "right")):
        drawing.text(x, grid.top - 5, text, size=9, anchor="end")
    for index, counts in enumerate(metrics.confusion.tolist()):
        y, images = grid.top + pitch * (index + 0.5) + 3.5, sum(counts)
        drawing.text(middle, y, f"{images:,}", size=9, anchor="end")
        if images:
            drawing.text(end, y, f"{counts[index] / images:.1%}", INK, size=9, anchor="end")


def _legend(drawing: Drawing, y: float) -> float:
    def square(colour: str) -> Callable[[float, float], None]:
        return lambda x, y: drawing.rect(Area(x - 6, y - 6, x + 6, y + 6), colour, fill_opacity="0.55")

    y = drawing.legend([(square(BLUE), "read right"), (square(ORANGE), "read as another class")], 0, y)
    return drawing.paragraph(0, y + 2, "The stronger the colour, the larger the share of the class.", QUIET) + 4


def _description(metrics: Metrics) -> str:
    wrong = metrics.images - metrics.right
    listed = "; ".join(f"{pair.truth} read as {pair.read}: {pair.count}" for pair in metrics.confusions[:6])
    return (
        f"How often each of {counted(len(metrics.per_class), 'class', 'classes')} is read as each: "
        f"{counted(wrong, 'mistake')} on {counted(metrics.images, 'image')}. Most frequent: {listed or 'none'}."
    )

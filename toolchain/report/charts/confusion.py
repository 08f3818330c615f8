"""Difference of two confusion matrices: which mistakes a file makes more often than its baseline, and which less."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from toolchain.core.quantities import counted
from toolchain.report.charts.class_grid import class_grid, runs_path
from toolchain.report.charts.svg import BLUE, INK, LINE, ORANGE, PAPER, QUIET, WIDTH, Area, Drawing, number
from toolchain.report.charts.text import shortened

Counts = NDArray[np.int64]
_OPACITIES = ("0.45", "0.6", "0.8", "1")
_FAINT = ("0.12", "0.22", "0.34", "0.46")
"""The same behind numbers, which must be readable on them."""
_NUMBERED = 22
"""Units of a cell from which on it holds its number."""
_SIZE = 11
_LISTED = 6


def confusion_svg(before: Counts, after: Counts, classes: Sequence[str], *, width: int = WIDTH) -> str:
    """Return a heat map of `after - before`.

    before, after: int64 [K, K], numbers of images: rows the truth, columns the answer (`metrics.confusion_matrix`).
    Filled squares are worse (more mistakes, or on the diagonal fewer right answers), flat bars better. width: units.
    """
    drawing = Drawing(width)
    change = after - before
    worse = np.where(np.eye(len(classes), dtype=bool), -change, change)
    title = "Confusions after and before"
    if not change.any():
        return drawing.svg(
            drawing.paragraph(0, 16, "No class is read as another more or less often than before."),
            title,
            f"No cell of the confusion matrix of {counted(len(classes), 'class', 'classes')} changed.",
        )
    grid, pitch = class_grid(drawing, classes)
    _cells(drawing, worse, grid, pitch)
    if pitch >= _NUMBERED:
        _numbers(drawing, change, grid, pitch)
    y = _legend(drawing, worse, grid.bottom + 20)
    for text in _largest(change, classes):
        drawing.text(0, y, shortened(text, width), INK)
        y += 16
    return drawing.svg(y - 6, title, _description(worse, change, classes))


def _cells(drawing: Drawing, worse: Counts, grid: Area, pitch: float) -> None:
    """Draw the cells that changed; the more images, the stronger, by the square root of their number."""
    opacities = _FAINT if pitch >= _NUMBERED else _OPACITIES
    levels = np.ceil(len(opacities) * np.sqrt(np.abs(worse) / np.abs(worse).max())).astype(int)
    drawing.rect(grid, "none", stroke=LINE)
    drawing.line((grid.left, grid.top), (grid.right, grid.bottom), LINE)
    place = f"translate({number(grid.left)} {number(grid.top)})scale({pitch:.4f})"
    with drawing.group(transform=place):
        for colour, sign, tall in ((ORANGE, 1, 0.94), (BLUE, -1, 0.4)):
            for level, opacity in enumerate(opacities, 1):
                data = runs_path((np.sign(worse) == sign) & (levels == level))
                drawing.add("path", d=data, stroke=colour, stroke_width=f"{tall}", stroke_opacity=opacity, fill="none")
        size = len(worse)
        edges = "".join(f"M{k} 0V{size}" for k in range(1, size))
        drawing.add("path", d=edges, stroke=PAPER, stroke_width="0.06", fill="none")


def _numbers(drawing: Drawing, change: Counts, grid: Area, pitch: float) -> None:
    for row, column in np.argwhere(change).tolist():
        x, y = grid.left + pitch * (column + 0.5), grid.top + pitch * (row + 0.5) + 4
        drawing.text(x, y, f"{change[row, column]:+d}", INK, size=_SIZE, anchor="middle")


def _legend(drawing: Drawing, worse: Counts, y: float) -> float:
    def square(x: float, y: float) -> None:
        drawing.rect(Area(x - 6, y - 6, x + 6, y + 6), ORANGE)

    def bar(x: float, y: float) -> None:
        drawing.rect(Area(x - 6, y - 2.5, x + 6, y + 2.5), BLUE)

    most = counted(int(np.abs(worse).max()), "image")
    y = drawing.legend(
        [
            (square, "worse than before"),
            (bar, "better"),
        ],
        0,
        y,
    )
    text = f"The strongest colour is a change by {most}. On the diagonal: right answers."
    return drawing.paragraph(0, y + 2, text, QUIET) + 4


def _largest(change: Counts, classes: Sequence[str]) -> list[str]:
    """Return the largest changes off the diagonal in words, the largest first."""
    wrong = change * (1 - np.eye(len(classes), dtype=np.int64))
    order = np.argsort(-np.abs(wrong), axis=None, kind="stable")[:_LISTED].tolist()
    pairs = [divmod(position, len(classes)) for position in order]
    return [
        f"{classes[truth]} read as {classes[answer]}: {wrong[truth, answer]:+d}"
        for truth, answer in pairs
        if wrong[truth, answer]
    ]


def _description(worse: Counts, change: Counts, classes: Sequence[str]) -> str:
    mistakes = -int(np.trace(change))
    more = (
        f"{abs(mistakes):,} {'more' if mistakes > 0 else 'fewer'} mistakes than" if mistakes else "as many mistakes as"
    )
    cells = f"{np.count_nonzero(worse > 0):,} cells are worse, {np.count_nonzero(worse < 0):,} better"
    listed = "; ".join(_largest(change, classes)) or "none between two classes"
    return (
        f"How often each of {counted(len(classes), 'class', 'classes')} is read as another, after against before: "
        f"{more} before in all, {cells}. Largest changes: {listed}."
    )

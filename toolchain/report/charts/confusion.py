"""Difference of two confusion matrices: which mistakes a file makes more often than its baseline, and which less."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
from numpy.typing import NDArray

from toolchain.report.charts.svg import BLUE, INK, LINE, ORANGE, PAPER, QUIET, WIDTH, Area, Drawing, number
from toolchain.report.charts.text import fitted, shortened, text_width
from toolchain.report.charts.units import counted

Counts = NDArray[np.int64]
_OPACITIES = ("0.45", "0.6", "0.8", "1")
_FAINT = ("0.12", "0.22", "0.34", "0.46")
"""The same behind numbers, which must be readable on them."""
_NUMBERED = 22
"""Units of a cell from which on it holds its number."""
_SIZE, _LANE, _LANES, _TITLE = 11, 13, 3, 18
"""Size of the classes' names; height of a line of them, and how many lie beside each other; room for an axis' title."""
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
    names = fitted(classes, 64, _SIZE)
    deep = max(_LANE, 6 + max(text_width(name, _SIZE) for name in names))
    # Lines beside each other, so that the names of narrow cells do not overlap; with more classes some have no name.
    lanes, pitch = 1, _pitch(width, deep, len(classes))
    while lanes < _LANES and pitch * lanes < _LANE:
        lanes += 1
        pitch = _pitch(width, deep * lanes, len(classes))
    corner = (_TITLE + deep * lanes, _TITLE + deep * lanes)
    grid = Area(*corner, corner[0] + pitch * len(classes), corner[1] + pitch * len(classes))
    _names(drawing, names, grid, pitch, (lanes, deep))
    _cells(drawing, worse, grid, pitch)
    if pitch >= _NUMBERED:
        _numbers(drawing, change, grid, pitch)
    y = _legend(drawing, worse, grid.bottom + 20)
    for text in _largest(change, classes):
        drawing.text(0, y, shortened(text, width), INK)
        y += 16
    return drawing.svg(y - 6, title, _description(worse, change, classes))


def _pitch(width: float, margin: float, count: int) -> float:
    """Return the side of a cell; few classes do not get huge ones."""
    return min((width - _TITLE - margin - 2) / count, 44)


def _names(drawing: Drawing, names: Sequence[str], grid: Area, pitch: float, lines: tuple[int, float]) -> None:
    """Write the classes along both axes, in turns on so many lines of such a depth, each joined to its cells."""
    lanes, deep = lines
    drawing.text(grid.left, 12, "read as")
    drawing.text(12, grid.top, "truth", anchor="end", turned=True)
    every = ceil(_LANE / (pitch * lanes))
    upright = all(text_width(name, _SIZE) <= max(_LANE, pitch * lanes) for name in names)
    joints = ""
    for index in range(0, len(names), every):
        away = 4 + deep * (index // every % lanes)
        x, y = (side + pitch * (index + 0.5) for side in (grid.left, grid.top))
        joints += (
            f"M{number(grid.left)} {number(y)}h{number(-away + 2)}M{number(x)} {number(grid.top)}v{number(-away + 2)}"
        )
        drawing.text(grid.left - away, y + 4, names[index], size=_SIZE, anchor="end")
        if upright:
            drawing.text(x, grid.top - away, names[index], size=_SIZE, anchor="middle")
        else:
            drawing.text(x + 4, grid.top - away, names[index], size=_SIZE, turned=True)
    drawing.path(joints, LINE, width=0.7)


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
                data = _runs((np.sign(worse) == sign) & (levels == level))
                drawing.add("path", d=data, stroke=colour, stroke_width=f"{tall}", stroke_opacity=opacity, fill="none")
        size = len(worse)
        edges = "".join(f"M{k} 0V{size}" for k in range(1, size))
        drawing.add("path", d=edges, stroke=PAPER, stroke_width="0.06", fill="none")


def _runs(chosen: NDArray[np.bool_]) -> str:
    """Return a path with a line through the middle of each chosen cell of side 1; neighbours in a row share theirs."""
    data = []
    for row, columns in enumerate(chosen):
        edges = np.flatnonzero(np.diff(np.concatenate([[False], columns, [False]])))
        at = None
        for start, end in edges.reshape(-1, 2).tolist():
            data.append(f"M{start} {row}.5h{end - start}" if at is None else f"m{start - at} 0h{end - start}")
            at = end
    return "".join(data)


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

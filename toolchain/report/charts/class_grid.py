"""A square grid with the classes along both axes: the truth down the side, the answers along the top."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
from numpy.typing import NDArray

from toolchain.report.charts.svg import LINE, Area, Drawing, number
from toolchain.report.charts.text import fitted, text_width

_SIZE, _LANE, _LANES, _TITLE = 11, 13, 3, 18
"""Size of the classes' names; height of a line of them, and how many lie beside each other; room for an axis' title."""
_LARGEST = 44


def class_grid(drawing: Drawing, classes: Sequence[str], *, top: float = 0, beside: float = 0) -> tuple[Area, float]:
    """Write the classes along both axes and return the area of the cells, and the side of one.

    top: where it begins. beside: units that stay free to the right of the cells.
    """
    names = fitted(classes, 64, _SIZE)
    deep = max(_LANE, 6 + max(text_width(name, _SIZE) for name in names))
    width = drawing.width - beside
    # Lines beside each other, so that the names of narrow cells do not overlap; with more classes some have no name.
    lanes, pitch = 1, _pitch(width, deep, len(classes))
    while lanes < _LANES and pitch * lanes < _LANE:
        lanes += 1
        pitch = _pitch(width, deep * lanes, len(classes))
    corner = (_TITLE + deep * lanes, top + _TITLE + deep * lanes)
    grid = Area(*corner, corner[0] + pitch * len(classes), corner[1] + pitch * len(classes))
    drawing.text(grid.left, top + 12, "read as")
    drawing.text(12, grid.top, "truth", anchor="end", turned=True)
    _names(drawing, names, grid, pitch, (lanes, deep))
    return grid, pitch


def _pitch(width: float, margin: float, count: int) -> float:
    """Return the side of a cell; few classes do not get huge ones."""
    return min((width - _TITLE - margin - 2) / count, _LARGEST)


def _names(drawing: Drawing, names: Sequence[str], grid: Area, pitch: float, lines: tuple[int, float]) -> None:
    """Write the classes along both axes, in turns on so many lines of such a depth, each joined to its cells."""
    lanes, deep = lines
    every = ceil(_LANE / (pitch * lanes))
    upright = all(text_width(name, _SIZE) <= max(_LANE, pitch * lanes) for name in names)
    joints = ""
    for index in range(0, len(names), every):
        away = 4 + deep * (index // every % lanes)
        x, y = (side + pitch * (index + 0.5) for side in (grid.left, grid.top))
        joints += (
            f"M{number(grid.left)} {number(y)}h{number(-away + 2)}M{number(x)} {number(grid.top)}v{number(-away + 2)}"
        )
        drawing.text(grid.left - away, y + 4, names[index], size=_SIZE, anchor="end", alike=True)
        if upright:
            drawing.text(x, grid.top - away, names[index], size=_SIZE, anchor="middle", alike=True)
        else:
            drawing.text(x + 4, grid.top - away, names[index], size=_SIZE, turned=True, alike=True)
    drawing.path(joints, LINE, width=0.7)


def runs_path(chosen: NDArray[np.bool_]) -> str:
    """Return a path with a line through the middle of each chosen cell of side 1; neighbours in a row share theirs."""
    data = []
    for row, columns in enumerate(chosen):
        edges = np.flatnonzero(np.diff(np.concatenate([[False], columns, [False]])))
        at = None
        for start, end in edges.reshape(-1, 2).tolist():
            data.append(f"M{start} {row}.5h{end - start}" if at is None else f"m{start - at} 0h{end - start}")
            at = end
    return "".join(data)

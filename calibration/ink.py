"""Finds the ink of a picture of handwriting: dark on light or light on dark, under uneven light, on grainy paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from calibration.errors import CorruptData

Gray = NDArray[np.uint8]
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Paper = Literal["light", "dark"]

_CELLS = 8
"""Cells along the longer side in which the brightness of the paper is measured; light falls off more slowly."""
_SMALLEST_CELL = 24
_FAINTEST = 24
"""Gray levels between ink and paper below which a picture counts as blank."""
_NOISE = 4.0
"""Standard deviations of the paper's grain above which a pixel may be ink."""
_EDGE = 0.4
"""Share of the way from paper to ink at which a stroke ends."""
_COHERENT = 0.3
"""Least chance that the neighbour of a pixel of ink is ink too, above what scattered pixels have."""
_SAMPLE = 1 << 20
"""Pixels that are enough to measure grain."""


@dataclass(frozen=True)
class Ink:
    """The ink of a picture.

    bright: uint8 [H, W], paper near 0 and ink bright, with even light. mask: bool [H, W], where there is ink. paper:
    what the picture was written on.
    """

    bright: Gray
    mask: Mask
    paper: Paper


def find_ink(gray: Gray) -> Ink:
    """Return the ink of a picture, uint8 [H, W]. Raises CorruptData when it is blank or holds nothing but noise."""
    if min(gray.shape) < 2 or int(gray.max()) - int(gray.min()) < _FAINTEST:
        raise CorruptData("there is no ink in it; scan it again with more contrast")
    paper = _paper(gray)
    absorbed = _absorbed(gray, paper)
    sample = absorbed.reshape(-1)[:: max(1, absorbed.size // _SAMPLE)]
    absorbed -= np.median(sample)
    grain = 1.4826 * float(np.median(np.abs(sample - np.median(sample))))
    floor = max(_NOISE * grain, float(_FAINTEST))
    strong = absorbed[absorbed > floor]
    if strong.size < 2:
        raise CorruptData("there is no ink in it; scan it again with more contrast")
    mask = absorbed > max(_EDGE * float(np.percentile(strong, 75)), floor)
    if not mask.any() or _coherence(mask) < _COHERENT:
        raise CorruptData("there is only noise in it, no writing; scan it again with more light and contrast")
    return Ink(np.clip(absorbed, 0, 255).astype(np.uint8), mask, paper)


def _paper(gray: Gray) -> Paper:
    """Return on which side of the local paper the ink lies: the one with more that stands out."""
    height, width = gray.shape
    step = max(1, max(height, width) // 1024)
    small = gray[::step, ::step].astype(np.float32)
    away = small - _spread(_cells(small, 50), small.shape)
    out = np.abs(away) > max(_FAINTEST, 4 * float(np.median(np.abs(away))))
    return "light" if float(away[out].sum()) <= 0 else "dark"


def _absorbed(gray: Gray, paper: Paper) -> Floats:
    """Return by how much each pixel differs from its paper towards ink, float32 [H, W]; about 0 to 255.

    Ink takes a share of the light that falls on the paper, so on light paper it is measured as that share.
    """
    step = max(1, max(gray.shape) // 1024)
    # Most of a cell is paper, so the quartile on its side is paper even where strokes are thick.
    cells = _cells(gray[::step, ::step].astype(np.float32), 75 if paper == "light" else 25)
    light = _spread(cells, gray.shape)
    if paper == "light":
        return np.asarray(255 * (1 - gray / np.maximum(light, 16)), np.float32)
    return np.asarray(gray - light, np.float32)


def _cells(gray: Floats, percentile: float) -> Floats:
    """Return a percentile of each cell; a cell that strokes fill takes the level of its neighbours."""
    from scipy import ndimage

    side = max(_SMALLEST_CELL, -(-max(gray.shape) // _CELLS))
    rows, columns = (max(1, round(length / side)) for length in gray.shape)
    cells = np.empty((rows, columns), np.float32)
    for row, band in enumerate(np.array_split(gray, rows)):
        for column, cell in enumerate(np.array_split(band, columns, 1)):
            cells[row, column] = np.percentile(cell, percentile)
    return np.asarray(ndimage.median_filter(cells, 3, mode="nearest"), np.float32)


def _spread(cells: Floats, shape: tuple[int, int]) -> Floats:
    """Return the level at every pixel, by straight lines through the centres of the cells and on to the edges."""
    spread = cells
    for axis, length in enumerate(shape):
        count = spread.shape[axis]
        position = (np.arange(length, dtype=np.float32) + 0.5) * count / length - 0.5
        low = np.clip(position.astype(np.int64), 0, max(count - 2, 0))
        share = (position - low).astype(np.float32)
        share = share[:, None] if axis == 0 else share[None]
        after = np.minimum(low + 1, count - 1)
        spread = spread.take(low, axis) * (1 - share) + spread.take(after, axis) * share
    return spread


def _coherence(mask: Mask) -> float:
    """Return by how much likelier the neighbour of ink is ink than any pixel: 0 for scattered pixels, to 1."""
    density = float(mask.mean())
    pairs = np.count_nonzero(mask[1:] & mask[:-1]) + np.count_nonzero(mask[:, 1:] & mask[:, :-1])
    firsts = np.count_nonzero(mask[:-1]) + np.count_nonzero(mask[:, :-1])
    if not firsts or density == 1:
        return 0.0
    return (pairs / firsts - density) / (1 - density)

"""Reliability diagram: how often answers of each confidence are right, before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from toolchain.core.quantities import counted, points_text
from toolchain.evaluation.compare import Pairs
from toolchain.report.charts.svg import BASE, OTHER, QUIET, WIDTH, Area, Drawing, Scale
from toolchain.report.charts.units import count_tick, percent_tick
from toolchain.stats.share import wilson

BINS = 10
"""Bins of equal width from confidence 0 to 1."""
Role = Literal["before", "after"]
_COLOURS: dict[Role, str] = {"before": BASE, "after": OTHER}
_SHIFT: dict[Role, float] = {"before": -3.5, "after": 3.5}
"""Units by which bars and marks stand beside the middle, so that neither covers the other."""


@dataclass(frozen=True)
class Bin:
    """The answers of one bin. confidence: their mean confidence; accuracy: share of right ones; interval: its 95 %."""

    count: int
    confidence: float
    accuracy: float
    interval: tuple[float, float]


def reliability_bins(confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> dict[int, Bin]:
    """Return the bins that have answers, by their number from 0.

    confidence: float32 [N], the probability of each answer; right: bool [N], whether it is the truth.
    """
    number = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins = {}
    for index in np.unique(number).tolist():
        inside = number == index
        count, hits = int(inside.sum()), int(right[inside].sum())
        mean = float(confidence[inside].mean(dtype=np.float64))
        bins[index] = Bin(count, mean, hits / count, wilson(hits, count))
    return bins


def calibration_error(bins: dict[int, Bin]) -> float:
    """Return the expected calibration error: the mean gap of confidence and accuracy, weighted by the answers."""
    total = sum(one.count for one in bins.values())
    return sum(one.count * abs(one.confidence - one.accuracy) for one in bins.values()) / max(1, total)


def reliability_svg(pairs: Pairs, *, width: int = WIDTH) -> str:
    """Return the diagram of a baseline and a candidate: accuracy with its interval by confidence, and the counts.

    Each different image counts once (`Pairs.once`), since copies would make the intervals too short. width: units.
    """
    drawing, pairs = Drawing(width), pairs.once
    both: dict[Role, dict[int, Bin]] = {
        "before": reliability_bins(pairs.before_confidence, np.equal(pairs.before, pairs.labels)),
        "after": reliability_bins(pairs.after_confidence, np.equal(pairs.after, pairs.labels)),
    }
    plot = Area(48, 26, width - 10, 216)
    across, up = Scale(0, 1, plot.left, plot.right), Scale(0, 1, plot.bottom, plot.top)
    drawing.y_axis(up, plot.left, percent_tick, title="share of right answers, with 95 % interval", right=plot.right)
    drawing.line((across(0), up(0)), (across(1), up(1)), QUIET, dashes="4 3")
    for role, bins in both.items():
        for one in bins.values():
            x = across(one.confidence) + _SHIFT[role] / 2
            low, high = one.interval
            note = (
                f"{role}: {counted(one.count, 'answer')} of confidence {one.confidence:.1%}, {one.accuracy:.1%} right"
            )
            with drawing.group(note):
                drawing.error_bar((x, up(low)), (x, up(high)), _COLOURS[role])
                _mark(drawing, role, x, up(one.accuracy))
    bottom = _counts(drawing, both, across, plot.bottom + 30)
    drawing.x_axis(across, bottom, percent_tick, title="confidence of the answer")
    y = drawing.legend(_legend(drawing, both), 0, bottom + 50)
    return drawing.svg(y - 8, "Reliability of the confidence", _description(pairs, both))


def _mark(drawing: Drawing, role: Role, x: float, y: float) -> None:
    if role == "before":
        drawing.rect(Area(x - 4, y - 4, x + 4, y + 4), _COLOURS[role])
    else:
        drawing.add("circle", cx=x, cy=y, r=4, fill=_COLOURS[role])


def _counts(drawing: Drawing, both: dict[Role, dict[int, Bin]], across: Scale, top: float) -> float:
    """Draw how many answers each bin has, on a log axis, the bars of both beside each other; returns their ground."""
    ground = top + 56
    most = max(one.count for bins in both.values() for one in bins.values())
    tall = Scale(0.7, max(most, 9) * 1.2, ground, top, log=True)
    drawing.y_axis(tall, across.start, count_tick, title="answers, log scale", right=across.end, most=3)
    for role, bins in both.items():
        for index, one in bins.items():
            x = across((index + 0.5) / BINS) + _SHIFT[role] * 1.6
            drawing.rect(Area(x - 5, tall(one.count), x + 5, ground), _COLOURS[role])
    return ground


def _legend(drawing: Drawing, both: dict[Role, dict[int, Bin]]) -> Sequence[tuple[Callable[[float, float], None], str]]:
    def diagonal(x: float, y: float) -> None:
        drawing.line((x - 8, y + 4), (x + 8, y - 4), QUIET, dashes="4 3")

    marks: list[tuple[Callable[[float, float], None], str]] = [
        (partial(_mark, drawing, role), f"{role}: mean gap {points_text(calibration_error(bins))} points")
        for role, bins in both.items()
    ]
    return [*marks, (diagonal, "confidence as high as it should be")]


def _description(pairs: Pairs, both: dict[Role, dict[int, Bin]]) -> str:
    gaps = " and ".join(f"{points_text(calibration_error(bins))} points {role}" for role, bins in both.items())
    return (
        f"Share of right answers by the confidence that they were given with, on {counted(len(pairs), 'image')}. "
        f"Confidence and accuracy differ by {gaps} on average. {pairs.baseline.name} is before, {pairs.candidate.name} "
        "after."
    )

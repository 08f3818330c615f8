"""Places for labels beside points: none lies on another, on a point, or on what joins another to its point."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import cos, hypot, pi, sin

from toolchain.report.charts.svg import Area
from toolchain.report.charts.text import text_width

_STEPS = 16
"""Directions that are tried around a point."""
_DISTANCES = (9, 14, 22, 32, 44, 58, 76, 96, 120, 150)
_JOINED = 13
"""From this distance on a line joins a label to its point."""


@dataclass(frozen=True)
class Label:
    """Where a text goes. x, y: start of its baseline. leader: the line from its point, None where it is beside it."""

    text: str
    x: float
    y: float
    area: Area
    leader: tuple[tuple[float, float], tuple[float, float]] | None


def place_labels(
    labels: Sequence[tuple[float, float, Sequence[str]]], taken: Sequence[Area], inside: Area, size: float = 10
) -> list[Label | None]:
    """Return a place for the label of each point, in the order in which they are given: the first have the choice.

    labels: the middle of each point, and the texts that name it, the best first; another is taken where there is no
    room for those before it. taken: what no label may cover. A label without a place is None.
    """
    taken = list(taken)
    joints: list[Area] = []
    placed = []
    for x, y, texts in labels:
        # What lies at the point is its own mark and error bar, or one that overlaps them: its line may cross that.
        others = [*joints, *(area for area in taken if not area.overlaps(Area(x - 6, y - 6, x + 6, y + 6)))]
        label = _place(_candidates((x, y), texts, size), (*taken, *joints), others, inside)
        if label is not None:
            taken.append(label.area)
            joints += _samples(label)
        placed.append(label)
    return placed


def _place(candidates: Iterable[Label], taken: Sequence[Area], others: Sequence[Area], inside: Area) -> Label | None:
    """Return the first candidate that covers nothing, and whose line crosses none of `others`."""
    for label in candidates:
        if not label.area.within(inside) or any(map(label.area.overlaps, taken)):
            continue
        if not any(sample.overlaps(area) for sample in _samples(label) for area in others):
            return label
    return None


def _candidates(point: tuple[float, float], texts: Sequence[str], size: float) -> Iterator[Label]:
    for text in texts:
        for distance in _DISTANCES:
            for step in range(_STEPS):
                yield _candidate(point, text, (distance, 2 * pi * step / _STEPS), size)


def _candidate(point: tuple[float, float], text: str, polar: tuple[float, float], size: float) -> Label:
    """Return the label whose nearest point lies at this distance and angle, which runs clockwise from the right."""
    (x, y), (distance, angle) = point, polar
    wide, high = text_width(text, size), 1.15 * size
    across, down = cos(angle), sin(angle)
    touch = x + distance * across, y + distance * down
    left = touch[0] - wide * (1 - across) / 2
    top = touch[1] - high * (1 - down) / 2
    area = Area(left, top, left + wide, top + high)
    leader = None
    if distance >= _JOINED:
        end = min(max(x, area.left), area.right), min(max(y, area.top), area.bottom)
        leader = (x + 6 * across, y + 6 * down), end
    return Label(text, left, top + 0.87 * size, area, leader)


def _samples(label: Label) -> list[Area]:
    """Return small areas along the line to a label."""
    if label.leader is None:
        return []
    (x, y), (end_x, end_y) = label.leader
    count = max(2, round(hypot(end_x - x, end_y - y) / 3))
    along = [(x + (end_x - x) * k / count, y + (end_y - y) * k / count) for k in range(count)]
    return [Area(a - 0.5, b - 0.5, a + 0.5, b + 0.5) for a, b in along]

"""Labels find places in which nothing is covered."""

from __future__ import annotations

from itertools import combinations, product
from random import Random

from toolchain.report.charts.labels import place_labels
from toolchain.report.charts.svg import Area

INSIDE = Area(0, 0, 360, 240)


def mark(x: float, y: float) -> Area:
    return Area(x - 5, y - 5, x + 5, y + 5)


def test_no_label_covers_a_point_or_another_label() -> None:
    random, placed = Random(3), 0
    for _ in range(20):
        points = [(random.uniform(10, 350), random.uniform(10, 230)) for _ in range(8)]
        wanted = [(x, y, [f"name-{k}.int8.onnx"]) for k, (x, y) in enumerate(points)]
        marks = [mark(x, y) for x, y in points]
        labels = [one for one in place_labels(wanted, marks, INSIDE) if one]
        placed += len(labels)
        assert all(one.area.within(INSIDE) for one in labels)
        assert not any(one.area.overlaps(area) for one, area in product(labels, marks))
        assert not any(one.area.overlaps(other.area) for one, other in combinations(labels, 2))
    assert placed >= 150, "of 160; some points lie on each other in a corner"


def test_a_label_that_moves_away_is_joined_to_its_point() -> None:
    wall = [Area(80, 80, 120, 120)]
    (label,) = place_labels([(100, 100, ["name"])], wall, INSIDE)
    assert label is not None
    assert label.leader is not None
    start, end = label.leader
    assert abs(start[0] - 100) <= 6
    assert Area(label.area.left - 0.1, label.area.top - 0.1, label.area.right + 0.1, label.area.bottom + 0.1).overlaps(
        Area(*end, *end)
    )
    (beside,) = place_labels([(100, 100, ["name"])], [mark(100, 100)], INSIDE)
    assert beside is not None
    assert beside.leader is None


def test_the_next_text_is_taken_where_the_first_has_no_room_and_none_where_nothing_has() -> None:
    small = Area(80, 80, 120, 120)
    (short,) = place_labels([(100, 100, ["a name that is far too long", "7"])], [mark(100, 100)], small)
    assert short is not None
    assert short.text == "7"
    assert place_labels([(100, 100, ["7"])], [small], small) == [None]

"""The mechanism of pictures: scales, nice ticks, text that fits, and nothing from a name that becomes markup."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.fixtures.svg import HOSTILE, Picture
from toolchain.report.charts.svg import INK, Drawing, Scale, nice_values, number


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [
        (0, 1, 5, [0, 0.5, 1]),
        (0, 1, 6, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-0.13, 0.21, 5, [-0.1, 0, 0.1, 0.2]),
        (93, 1012, 5, [200, 400, 600, 800, 1000]),
        (3, 3, 5, [3]),
    ],
)
def test_ticks_are_round(low: float, high: float, most: int, expected: list[float]) -> None:
    assert nice_values(low, high, most) == pytest.approx(expected)


@pytest.mark.parametrize("high", [1.02, 1.5, 3, 9, 40, 1e3, 1e7])
def test_a_log_scale_has_a_few_ticks_inside_and_equal_ratios_are_equal_lengths(high: float) -> None:
    scale = Scale(1.0, high, 10, 200, log=True)
    ticks = scale.ticks(5)
    assert 2 <= len(ticks) <= 5
    assert all(1 <= tick <= high and float(f"{tick:.2g}") == pytest.approx(tick, rel=0.02) for tick in ticks)
    assert scale(1.0) == 10
    assert scale(high**0.5) == pytest.approx(105)
    assert scale(high) == scale(10 * high) == 200


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("values", [[], [7.0], [0.0, -1.0], [float("nan"), float("inf")], [2.0, 2.0]])
def test_a_scale_of_no_or_one_value_still_has_a_span(values: list[float], log: bool) -> None:
    scale = Scale.around(values, 0, 100, log=log)
    assert scale.high > scale.low
    assert scale.ticks()
    assert values != [7.0] or 20 < scale(7.0) < 80


def hostile(standalone: bool = False) -> str:
    drawing = Drawing()
    drawing.text(5, 20, HOSTILE, INK)
    with drawing.group(HOSTILE):
        drawing.add("circle", cx=1, cy=2, r=3, fill=HOSTILE)
    drawing.paragraph(5, 60, 'fill="var(--ink, #000000)"')
    return drawing.svg(200, HOSTILE, "what is to be seen here", standalone=standalone)


def test_a_name_stays_text_wherever_it_stands() -> None:
    picture = Picture(hostile())
    assert {one.tag.rpartition("}")[2] for one in picture.root.iter()} == {
        "svg",
        "title",
        "desc",
        "text",
        "g",
        "circle",
    }
    assert all(set(one.attrib) <= {"x", "y", "cx", "cy", "r", "fill"} for one in list(picture.root)[2:])
    assert not any(mark in hostile() for mark in "\x00\x1b\u202e")
    assert any("<script>alert(1)</script>&\\x00\\x1b[31m\\u202e" in text for text in picture.words)
    assert "<script>" in picture.title


def test_a_file_of_its_own_has_a_size_and_plain_colours() -> None:
    alone = hostile(standalone=True)
    picture = Picture(alone)
    assert (picture.root.get("width"), picture.root.get("height")) == ("360", "200")
    assert picture.all("text")[0].get("fill") == "#1a1a1a"
    assert 'fill="var(--ink, #000000)"' in picture.words, "a text is not a colour"
    assert Picture(hostile()).root.get("width") is None


def test_equal_pictures_have_equal_bytes_and_others_other_ids() -> None:
    assert hostile() == hostile()
    first, second = (Picture(Drawing().svg(10, name, "what is to be seen here")) for name in "ab")
    ids = [[one.get("id") for one in picture.root] for picture in (first, second)]
    assert not set(ids[0]) & set(ids[1])


def test_tick_texts_of_an_axis_stay_apart_and_inside() -> None:
    drawing = Drawing(200)
    scale = Scale(1e5, 1.2e6, 0, 200)
    drawing.x_axis(scale, 50, "{:,.0f} instructions".format)
    Picture(drawing.svg(80, "axis", "an axis with long texts")).check()
    drawing = Drawing()
    drawing.y_axis(Scale(0, 1, 100, 20), 60, "{:.0%}".format, title="share")
    picture = Picture(drawing.svg(120, "axis", "an axis of shares")).check()
    heights = [one.y for one in picture.texts() if one.text.endswith("%")]
    assert heights == sorted(heights, reverse=True), "larger shares stand higher"
    steps = {round(a - b, 1) for a, b in pairwise(heights)}
    assert len(steps) == 1


def test_a_legend_breaks_into_lines() -> None:
    drawing = Drawing(200)
    drawn: list[tuple[float, float]] = []
    entries = [(lambda x, y: drawn.append((x, y)), f"entry number {k}") for k in range(4)] + [
        (lambda x, y: drawn.append((x, y)), "long" * 40)
    ]
    below = drawing.legend(entries, 0, 20)
    picture = Picture(drawing.svg(below, "legend", "a legend of five entries")).check()
    assert len(picture.words) == len(drawn) == 5
    assert len({y for _, y in drawn}) > 2


def test_lengths_are_short() -> None:
    assert [number(value) for value in (12.0, 12.04, -0.04, 12.26)] == ["12", "12", "0", "12.3"]


def test_a_scale_without_room_ends_at_its_values() -> None:
    scale = Scale.around([0.2, 0.8], 0, 100, room=0)
    assert (scale.low, scale.high) == (0.2, 0.8)

"""The Pareto picture: where files lie, how they were judged, and what names them."""

from __future__ import annotations

import re
from itertools import pairwise
from math import log

import pytest

from tests.fixtures.svg import HOSTILE, Picture, level_ends
from toolchain.report.charts.pareto import Point, front, pareto_svg
from toolchain.report.charts.svg import Area
from toolchain.stats.decision import Outcome

PASS, FAIL, UNSURE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
FILES = [
    Point("letters.float.onnx", 163_000, 1.0, baseline=True),
    Point("letters.fp16.onnx", 84_000, 1.31, (1.25, 1.38), 0.0001, (-0.001, 0.0012), PASS),
    Point("letters.int8-dynamic.onnx", 45_000, 1.05, (0.99, 1.12), 0.0012, (-0.0005, 0.003), UNSURE),
    Point("letters.int8-static.onnx", 44_100, 0.52, (0.5, 0.55), 0.0006, (-0.001, 0.002), PASS, winner=True),
    Point("letters.int8-static.tflite", 46_000, 0.50, (0.49, 0.56), 0.0007, (-0.001, 0.0024), PASS),
    Point("letters.w4a8.tflite", 26_000, 0.55, (0.53, 0.58), 0.011, (0.008, 0.0145), FAIL),
]


def groups(picture: Picture, name: str) -> list[tuple[float, float]]:
    """Return the middle of the circle of each group that is about a file: in the picture, then in the list."""
    found = [one for one in picture.all("g") if one[0].text and one[0].text.startswith(f"{name}:")]
    return [(float(one.find(".//{*}circle").get("cx")), float(one.find(".//{*}circle").get("cy"))) for one in found]


@pytest.mark.parametrize("width", [358, 720])
def test_files_lie_by_size_and_latency_on_log_axes(width: int) -> None:
    files = [
        Point(f"letters.{k}.onnx", size, cost, outcome=PASS, drop=0.0)
        for k, size, cost in ((0, 10_000, 0.5), (1, 20_000, 1.0), (2, 40_000, 2.0))
    ]
    picture = Picture(pareto_svg(files, "ratio", width=width)).check()
    (a, b, c) = (groups(picture, file.name)[0] for file in files)
    assert a[0] < b[0] < c[0]
    assert a[1] > b[1] > c[1], "what costs more stands higher"
    assert b[0] - a[0] == pytest.approx(c[0] - b[0], abs=0.2)
    assert a[1] - b[1] == pytest.approx(b[1] - c[1], abs=0.2)
    ticks = [one for one in picture.texts() if one.text.endswith(" KB")]
    low, high = ticks[0], ticks[-1]
    share = log(20_000 / (1e3 * float(low.text[:-3]))) / log(float(high.text[:-3]) / float(low.text[:-3]))
    assert low.x + share * (high.x - low.x) == pytest.approx(b[0], abs=0.5), "the ticks say the same sizes"


@pytest.mark.parametrize("width", [358, 720])
def test_every_file_is_named_once_without_covering_another(width: int) -> None:
    picture = Picture(pareto_svg(FILES, "ratio", margin=0.005, width=width)).check()
    heading = next(one.y for one in picture.texts() if one.text.startswith("Drop in accuracy"))
    upper = [one.text for one in picture.texts() if one.y < heading and one.text.startswith("…")]
    assert sorted(upper) == sorted(file.name.replace("letters.", "…") for file in FILES)
    assert "dashed: the largest drop allowed, 0.50" in " ".join(picture.words)
    assert "letters.int8-static.onnx" in picture.title
    assert "0.52 times the latency of the float baseline (0.50 to 0.55)" in picture.title
    assert "3 pass, 1 fail, 1 are inconclusive" in picture.title


def test_the_shape_says_the_verdict_and_a_ring_the_winner() -> None:
    def marks(**changes: object) -> list[tuple[str, ...]]:
        picture = Picture(pareto_svg([Point("a.onnx", 1000, 1.0, **changes)], "ratio"))  # type: ignore[arg-type]
        group = next(one for one in picture.all("g"))
        return [(one.tag.rpartition("}")[2], one.get("r", ""), one.get("d", "")[-12:]) for one in group][1:]

    kinds = [marks(baseline=True), *(marks(outcome=outcome) for outcome in (PASS, FAIL, UNSURE, None))]
    shapes = [(*kind[0][:2], kind[0][2].lstrip("0123456789. ")) for kind in kinds]
    assert len(set(shapes)) == 5
    assert len(marks(outcome=PASS, winner=True)) == len(marks(outcome=PASS)) + 1


def test_error_bars_and_drops_stand_where_their_values_are() -> None:
    picture = Picture(pareto_svg(FILES, "ratio"))
    zero = next(one for one in picture.texts() if one.text == "0")
    one_point = next(one for one in picture.texts() if one.text == "+1")
    unit = one_point.x - zero.x
    rows = {file.name: groups(picture, file.name)[-1] for file in FILES if file.outcome is PASS}
    for file in FILES:
        if file.outcome is PASS:
            assert rows[file.name][0] == pytest.approx(zero.x + 100 * (file.drop or 0) * unit, abs=0.3)
    group = next(one for one in picture.all("g") if one[0].text.startswith("letters.w4a8.tflite: drop 1.10 points"))
    start, end = level_ends(group[1])
    assert start == pytest.approx(zero.x + 0.8 * unit, abs=0.3)
    assert end == pytest.approx(zero.x + 1.45 * unit, abs=0.3)


def test_the_front_holds_no_file_that_fails_or_that_another_beats() -> None:
    assert [one.name for one in front(FILES)] == ["letters.int8-static.onnx", "letters.int8-static.tflite"]
    steps = list(Picture(pareto_svg(FILES, "ratio")).all("path", stroke_dasharray="2 3"))
    assert len(steps) == 2, "the front, and its entry in the legend"
    assert steps[0].get("d", "").count("H") == 1


def test_no_name_lies_on_the_front() -> None:
    costs = ((214_490, 1.0), (214_606, 0.99), (215_238, 0.4), (218_480, 0.48), (221_008, 0.31))
    files = [Point(f"letters.scheme-{k}.onnx", *where, outcome=PASS, drop=0.0) for k, where in enumerate(costs)]
    picture = Picture(pareto_svg(files, "ratio", width=720)).check()
    steps = picture.all("path", stroke_dasharray="2 3")[0].get("d", "")
    corners = [(float(x), float(y)) for x, y in re.findall(r"[MH]([\d.]+)[ V]([\d.]+)", steps)]
    covered = [
        area
        for (x, y), (right, lower) in pairwise(corners)
        for area in (Area(x, y - 0.5, right, y + 0.5), Area(right - 0.5, y, right + 0.5, lower))
    ]
    assert len(corners) > 2
    names = [one for one in picture.texts() if one.text.startswith("…") and one.y < 344]
    assert len(names) == len(files)
    assert [one.text for one in names for area in covered if one.area.overlaps(area)] == []


@pytest.mark.parametrize("files", [[], FILES[:1], [Point("a", 5, None)], [Point("a", 5, 1.0), Point("a", 5, 1.0)]])
def test_few_files_are_drawn_too(files: list[Point]) -> None:
    picture = Picture(pareto_svg(files, "ns")).check()
    assert ("No file was measured, so none has" in " ".join(picture.words)) == (
        not any(file.cost is not None for file in files)
    )


def test_many_files_in_one_place_are_named_in_the_list() -> None:
    files = [Point(f"letters.{k}.onnx", 30_000 + 40 * k, 0.5 + k / 1000, drop=0.0, outcome=PASS) for k in range(40)]
    picture = Picture(pareto_svg(files, "ratio")).check()
    assert all(f"{k + 1} …{k}.onnx" in picture.words for k in range(40))


def test_a_hostile_name_stays_text() -> None:
    svg = pareto_svg([*FILES, Point(HOSTILE, 30_000, 0.9, drop=0.0, outcome=PASS)], "ratio")
    assert not Picture(svg).all("script")
    assert len(svg) < 14_000

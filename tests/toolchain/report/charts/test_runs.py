"""The picture of presses over time: what each run measured, what may be compared, and that nothing overlaps."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.fixtures.reports import pressed_report
from tests.fixtures.svg import HOSTILE, Picture, level_ends
from toolchain.report.charts.runs import runs_svg
from toolchain.report.report import Report
from toolchain.report.runs import Run, RunLine, run_lines

FIRST = pressed_report(3)


def smaller(report: Report, share: float) -> Report:
    return replace(report, rows=(report.rows[0], replace(report.rows[1], bytes=round(report.rows[1].bytes * share))))


def counted(report: Report, instructions: float) -> Report:
    rows = (replace(report.rows[0], instructions=9e6), replace(report.rows[1], instructions=instructions))
    return replace(report, rows=rows)


def lines(*reports: Report) -> list[RunLine]:
    return run_lines([Run(f"runs/day-{number}", report) for number, report in enumerate(reports)])


def marks(picture: Picture, start: str) -> list[float]:
    """Return where the circles of the groups lie that are about a file, run and figure."""
    found = [one for one in picture.all("g") if (one[0].text or "").startswith(start)]
    return [float(one.find(".//{*}circle").get("cx")) for one in found]


@pytest.mark.parametrize("width", [358, 720])
def test_size_drop_time_and_instructions_of_each_run_have_a_place(width: int) -> None:
    runs = [counted(smaller(FIRST, share), cost) for share, cost in ((1, 4e6), (0.9, 3e6), (0.8, 2e6))]
    picture = Picture(runs_svg(lines(*runs), width=width)).check()
    sizes = [marks(picture, f"static-int8.onnx, runs/day-{day}: size")[0] for day in range(3)]
    assert sizes[0] > sizes[1] > sizes[2]
    costs = [marks(picture, f"static-int8.onnx, runs/day-{day}: instructions")[0] for day in range(3)]
    assert costs[0] > costs[1] > costs[2]
    for text in ("float.onnx", "static-int8.onnx", "day-2", "drop, points", "time, times float's", "147 KB", "2 M"):
        assert text in picture.words
    assert "instructions 4 M, then 3 M, then 2 M" in picture.title


def test_the_interval_of_a_drop_stands_where_its_values_are() -> None:
    picture = Picture(runs_svg(lines(FIRST, FIRST), width=720))
    group = next(one for one in picture.all("g") if "static-int8.onnx, runs/day-1: drop" in (one[0].text or ""))
    low, high = FIRST.comparisons[0].interval
    drop = FIRST.rows[1].drop
    assert drop is not None
    start, end = level_ends(group[1])
    middle = float(group.find(".//{*}circle").get("cx"))  # type: ignore[union-attr, arg-type]
    assert (middle - start) / (end - start) == pytest.approx((drop - low) / (high - low), abs=0.02)


def test_what_may_not_be_compared_is_hollow_and_joined_to_nothing() -> None:
    other = replace(FIRST, machine=FIRST.machine | {"cpu": "Cortex-A72"})
    same, differs = (Picture(runs_svg(lines(FIRST, report))).check() for report in (FIRST, other))
    hollow = "static-int8.onnx, runs/day-1: time, times float's 0.68, may not be compared"
    (group,) = (one for one in differs.all("g") if one[0].text == hollow)
    assert group.find(".//{*}circle").get("fill") == "none"  # type: ignore[union-attr]
    assert "may not be compared" in differs.words
    assert "may not be compared" not in same.words
    joints = [len(picture.all("path", stroke_width="2")) for picture in (same, differs)]
    assert joints[0] - joints[1] == 2, "the time of either file is joined no longer"


def test_of_many_files_the_first_are_drawn_and_names_stay_text() -> None:
    rows = tuple(replace(FIRST.rows[1], recipe=f"recipe-{k}", winner=False) for k in range(30))
    many = replace(FIRST, rows=(FIRST.rows[0], *rows))
    picture = Picture(runs_svg(run_lines([Run("a", many), Run(HOSTILE, many)]), width=720)).check()
    assert "11 files more: in the tables below." in picture.words
    assert not picture.all("script")

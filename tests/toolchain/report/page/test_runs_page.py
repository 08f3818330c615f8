"""The page of presses over time in a real Chromium, where marks stand beside figures that may not be compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.fixtures.reports import pressed_report
from tests.fixtures.viewed_pages import Viewer
from toolchain.report.page.runs_page import runs_html
from toolchain.report.runs import Run

OVERLAPPING = """() => {
  const over = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
  const inside = (a, b) => a.left >= b.left - 1 && a.right <= b.right + 1;
  return [...document.querySelectorAll("tbody tr")].flatMap((row) => {
    const cells = [...row.children].map((cell) => cell.getBoundingClientRect());
    const marks = [...row.querySelectorAll(".mark")].map((mark) => [mark, mark.parentElement]);
    return [
      ...cells.flatMap((a, k) => cells.slice(k + 1).filter((b) => over(a, b)).map(() => row.textContent)),
      ...marks.filter(([mark, cell]) => !inside(mark.getBoundingClientRect(), cell.getBoundingClientRect()))
        .map(([mark]) => mark.textContent),
    ];
  });
}"""


@pytest.mark.parametrize("width", [390, 1150, 1280])
def test_marks_stand_beside_their_figures_and_cover_nothing(width: int, tmp_path: Path, viewer: Viewer) -> None:
    first = pressed_report(3)
    other = replace(
        first,
        machine=first.machine | {"cpu": "Cortex-A72"},
        dataset=replace(first.dataset, sha256="c" * 64),
        checkpoint=replace(first.checkpoint, sha256="d" * 64, model="Other"),
    )
    path = tmp_path / "compare.html"
    path.write_text(runs_html([Run("monday", first), Run("a/long folder/of tuesday", other)]), encoding="utf-8")
    seen, noises = viewer.view(path, lambda page: page.evaluate(OVERLAPPING), width=width)
    assert (seen, noises) == ([], [])
    assert viewer.faults(path, width=width, scheme="dark") == []

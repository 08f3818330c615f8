"""A press's page in a real Chromium: at both widths, in both colour schemes, without JavaScript, by keyboard."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.fixtures.hostile_report import hostile_press
from tests.fixtures.judgements import gathered
from tests.fixtures.reports import pressed_report
from tests.fixtures.timings import flat_timings
from tests.fixtures.viewed_pages import FAULTS, Scheme, Viewer
from toolchain.evaluation.compare import comparison
from toolchain.report.page.press_page import PressDetails, press_html
from toolchain.report.pull_request import flips


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a press on real answers, with every section and picture."""
    proof = gathered(broken=True)
    digests = [file.sha256 for file in proof.pairs.files]
    base, latest = (flat_timings(digest, median) for digest, median in zip(digests, (99_000, 61_000), strict=True))
    evidence = replace(proof, timings=latest, baseline_timings=base)
    report = pressed_report(3_000)
    names = [file.name for file in proof.pairs.files]
    rows = tuple(replace(row, name=name) for row, name in zip(report.rows, names, strict=True))
    report = replace(report, rows=rows, comparisons=(comparison(proof.pairs),), created="2026-11-29T04:24:05+00:00")
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(press_html(report, PressDetails([evidence])), encoding="utf-8")
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wrong_at_a_glance(width: int, scheme: Scheme, page_file: Path, viewer: Viewer) -> None:
    assert viewer.faults(page_file, width=width, scheme=scheme) == []


def test_paper_is_white_where_the_screen_is_dark(page_file: Path, viewer: Viewer) -> None:
    def look(page: Any) -> tuple[list[str], str]:
        page.emulate_media(media="print", color_scheme="dark")
        ground = page.locator(".ruling").evaluate("(box) => getComputedStyle(box).backgroundColor")
        return page.evaluate(FAULTS), ground

    (faults, ground), _ = viewer.view(page_file, look, width=794, scheme="dark")
    assert faults == []
    assert min(int(part) for part in ground.removeprefix("rgb(").rstrip(")").split(",")) > 220, ground


@pytest.mark.parametrize("width", [320, 1000])
def test_wide_and_folded_tables_fit_screens_between(width: int, large_page: Path, viewer: Viewer) -> None:
    assert viewer.faults(large_page, width=width, scheme="light") == []


def test_a_cell_says_its_heading_where_a_row_is_a_block(large_page: Path, viewer: Viewer) -> None:
    def look(page: Any) -> list[str]:
        cell = page.locator("#files tbody td").first
        return [cell.evaluate("(td) => getComputedStyle(td, '::before').content")]

    seen = [viewer.view(large_page, look, width=width)[0] for width in (390, 1280)]
    assert seen == [['"size"'], ["none"]]


def test_every_tile_shows_its_own_character(page_file: Path, viewer: Viewer) -> None:
    def look(page: Any) -> list[bytes]:
        tiles = page.locator(".gallery svg")
        return [tiles.nth(index).screenshot() for index in (0, 1, 7)]

    shots, _ = viewer.view(page_file, look, script=False)
    shown = [flip.picture for flip in flips(gathered(broken=True), 24) if flip.picture is not None]
    for index, shot in zip((0, 1, 7), shots, strict=True):
        # Two pixels of the screen are one of the character; around it is a border, which may begin within a pixel.
        pixels = np.asarray(Image.open(io.BytesIO(shot)).convert("L"))[2:58:2, 2:58:2].astype(int)
        off = [np.abs(pixels - (255 - image.astype(int))).mean() for image in shown]
        assert int(np.argmin(off)) == index
        assert off[index] < 10


def test_a_fault_would_be_seen(tmp_path: Path, page_file: Path, viewer: Viewer) -> None:
    html = page_file.read_text(encoding="utf-8")
    bad = html.replace("</h1>", '</h1><h3>far</h3><img src="x.png"><p style="color:red">a</p>').replace(
        "#55606d", "#aab0b8"
    )
    path = tmp_path / "bad.html"
    path.write_text(bad.replace('<th scope="row"', "<th"), encoding="utf-8")
    faults = "\n".join(viewer.faults(path, width=1280, scheme="light"))
    for part in ("h3 out of order", "no text: <img", "no scope", "Content Security Policy"):
        assert part in faults


def test_the_page_says_all_without_javascript(page_file: Path, viewer: Viewer) -> None:
    def look(page: Any) -> tuple[str, int]:
        return page.inner_text("main"), page.locator("th button").count()

    (text, buttons), noises = viewer.view(page_file, look, width=390, script=False)
    assert noises == []
    assert buttons == 0
    for part in ("Do not ship", "float.onnx", "broken.onnx", "Some *CPU*", "$ glyphpress"[2:]):
        assert part in text


def test_names_that_are_script_run_nothing(tmp_path: Path, viewer: Viewer) -> None:
    def look(page: Any) -> list[Any]:
        kinds = "[document.scripts.length, document.images.length, document.title, typeof hacked]"
        return [page.evaluate(kinds), page.locator(".gallery svg").count()]

    report, evidence = hostile_press()
    path = tmp_path / "hostile.html"
    path.write_text(press_html(report, PressDetails(evidence)), encoding="utf-8")
    ((scripts, pictures, title, hacked), tiles), noises = viewer.view(path, look)
    assert noises == []
    assert (scripts, pictures, hacked, tiles) == (1, 0, "undefined", 24)
    assert title.startswith("</style></script><script>")
    assert viewer.faults(path, width=390, scheme="dark") == []


@pytest.mark.parametrize("heading", ["drop", "equal answers"])
def test_rows_without_a_value_are_last_in_both_directions(heading: str, large_page: Path, viewer: Viewer) -> None:
    def look(page: Any) -> list[list[str]]:
        table = page.locator("#files table").first
        index = table.locator("thead th").all_inner_texts().index(heading)
        column = table.locator(f"tbody tr td:nth-child({index + 1})")
        orders = []
        for _ in range(2):
            table.locator("thead button").nth(index).click()
            orders.append(column.all_inner_texts())
        return orders

    orders, noises = viewer.view(large_page, look)
    assert noises == []
    assert [order[-1] for order in orders] == ["-", "-"]
    assert orders[0][0] != "-"
    assert orders[0] != orders[1]


def test_a_table_is_sorted_by_keyboard_and_mouse(page_file: Path, viewer: Viewer) -> None:
    def look(page: Any) -> list[Any]:
        table = page.locator("#classes table").first
        column = table.locator("tbody tr td:last-child")
        button = table.get_by_role("button", name="drop")
        orders = [column.all_inner_texts()]
        button.focus()
        page.keyboard.press("Enter")
        orders.append(column.all_inner_texts())
        button.click()
        return [*orders, column.all_inner_texts(), table.locator("thead th").last.get_attribute("aria-sort")]

    (shown, up, down, sort), noises = viewer.view(page_file, look)
    drops = [float(text.split()[0]) for text in up]
    assert noises == []
    assert len(set(drops)) > 2
    assert drops == sorted(drops)
    assert down == up[::-1] == shown
    assert sort == "descending"

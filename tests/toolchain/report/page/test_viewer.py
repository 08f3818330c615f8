"""`glyphpress report DIR --open`: the browser gets the page, and what is missing is said in one line."""

from __future__ import annotations

import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.pages import check_page
from tests.fixtures.reports import pressed_report
from toolchain.report.page.viewer import PAGE

Program = Callable[..., Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a press by an older version, without a page."""
    pressed_report(3).save(tmp_path / "out" / "report.json")
    return tmp_path / "out"


def test_the_browser_gets_the_page(
    glyphpress: Program, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or True)
    missing = glyphpress("report", folder, "--open")
    assert (missing.code, missing.out, opened) == (3, "", [])
    assert f"an older version pressed it; -o {PAGE} makes the page" in missing.err
    done = glyphpress("report", folder, "--open", "-o", tmp_path / "elsewhere" / "page.html")
    assert done.code == 0, done.err
    assert "int8.onnx" in done.out
    page = check_page((tmp_path / "elsewhere" / "page.html").read_text(encoding="utf-8"))
    assert [link["href"] for link in page.all("a")].count("../out/int8.onnx") == 2
    (folder / PAGE).write_text("<p>")
    assert glyphpress("report", folder, "--open").code == 0
    assert opened == [path.as_uri() for path in (tmp_path / "elsewhere" / "page.html", folder / PAGE)]


def test_where_there_is_no_browser_the_advice_says_what_to_do(
    glyphpress: Program, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webbrowser, "open", lambda address: False)
    (folder / PAGE).write_text("<p>")
    done = glyphpress("report", folder, "--open")
    assert done.code == 4
    assert "there is no web browser here; copy " in done.err
    assert "BROWSER" in done.err


def test_files_that_changed_after_the_press_are_named_first(glyphpress: Program, folder: Path, tmp_path: Path) -> None:
    (folder / "int8.onnx").write_bytes(b"another model")
    done = glyphpress("report", folder, "-o", tmp_path / "page.html", "-q")
    assert done.code == 0, done.err
    assert "warning: int8.onnx was changed after the press (sha256 " in done.err, "-q hides progress, not this"
    page = check_page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "Not of these files int8.onnx was changed after the press" in page.text
    assert "Ready to ship" not in page.text


def test_a_file_that_was_removed_after_the_press_is_named_unless_all_were(
    glyphpress: Program, folder: Path, tmp_path: Path
) -> None:
    assert glyphpress("report", folder).err == ""
    (folder / "float.onnx").write_bytes(b"a model")
    done = glyphpress("report", folder, "-o", tmp_path / "page.html")
    assert done.code == 0, done.err
    assert f"warning: int8.onnx is no longer in {folder}; press again, or look for where it was moved" in done.err
    page = check_page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert f"int8.onnx is no longer in {folder}" in page.text


def test_timings_have_no_page(glyphpress: Program, folder: Path) -> None:
    done = glyphpress("report", folder / "timings.npz", "--open")
    assert done.code == 2
    assert "timings have no page" in done.err

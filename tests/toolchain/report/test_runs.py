"""Presses over time: which figures may be compared, and which may not and why; as a table, JSON and a page."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.pages import check_page
from tests.fixtures.reports import pressed_report
from toolchain.report.page.runs_page import runs_html
from toolchain.report.report import Report
from toolchain.report.runs import Run, run_lines, run_remarks, runs_table

Program = Callable[..., Any]
BASE = pressed_report(3)
LATER = pressed_report(5, median=60_000)


def other_images(report: Report) -> Report:
    return replace(report, dataset=replace(report.dataset, sha256="cd" * 32))


def other_machine(report: Report) -> Report:
    return replace(report, machine=report.machine | {"cpu": "Cortex-A72"})


def other_model(report: Report) -> Report:
    return replace(report, checkpoint=replace(report.checkpoint, parameters=7))


def other_target(report: Report) -> Report:
    return replace(report, rows=tuple(replace(row, target="openvino-cpu") for row in report.rows))


@pytest.mark.parametrize(
    ("change", "spoiled", "words"),
    [
        (lambda report: report, set(), ""),
        (other_images, {"drop"}, "other test images (18,800 of emnist:balanced/test, sha256 cdcdcdcd, not"),
        (other_machine, {"cost"}, "another machine (Cortex-A72, ? cores, not Some *CPU*, ? cores)"),
        (other_model, {"size", "drop", "cost", "instructions"}, "another model (Net with 7 parameters, not Net with"),
        (other_target, {"cost", "instructions"}, ""),
    ],
    ids=["same", "images", "machine", "model", "target"],
)
def test_what_may_not_be_compared_is_said(change: Callable[[Report], Report], spoiled: set[str], words: str) -> None:
    runs = [Run("monday", BASE), Run("tuesday", change(LATER))]
    (line,) = (line for line in run_lines(runs) if line.run == "tuesday" and line.file == "static-int8.onnx")
    assert {figure for figure in ("size", "drop", "cost", "instructions") if line.spoiled(figure)} == spoiled
    assert words in " ".join(run_remarks(runs))
    text = runs_table(runs).text()
    assert ("!: may not be compared with monday" in text) == bool(spoiled)
    page = check_page(runs_html(runs)).text
    assert ("These runs may be compared" in page) == (not spoiled)
    assert ("Not everything may be compared" in page) == bool(spoiled)
    assert "Files from run to run 2 files in 2 runs." in page


def test_each_file_is_followed_from_run_to_run_though_its_name_changes() -> None:
    renamed = replace(LATER, rows=tuple(replace(row, name=f"new-{row.name}") for row in LATER.rows))
    lines = run_lines([Run("monday", BASE), Run("tuesday", renamed)])
    assert [(line.file, line.run) for line in lines] == [
        (file, run) for file in ("float.onnx", "static-int8.onnx") for run in ("monday", "tuesday")
    ]


def test_other_weights_are_said_and_forbid_nothing() -> None:
    retrained = replace(LATER, checkpoint=replace(LATER.checkpoint, sha256="ee" * 32))
    runs = [Run("monday", BASE), Run("tuesday", retrained)]
    assert "other weights (sha256 eeeeeeee, not 3fa13fa1)" in " ".join(run_remarks(runs))
    assert not any(line.differs for line in run_lines(runs))


def test_the_program_compares_folders_and_writes_the_page(glyphpress: Program, tmp_path: Path) -> None:
    for name, report in (("a", BASE), ("<b>", other_machine(LATER))):
        (tmp_path / name).mkdir()
        report.save(tmp_path / name / "report.json")
    folders, page = (tmp_path / "a", tmp_path / "<b>"), tmp_path / "compare.html"
    done = glyphpress("report", *folders, "-o", page)
    assert done.code == 0, done.err
    assert "static-int8.onnx" in done.out
    text = check_page(page.read_text(encoding="utf-8")).text
    assert "2 presses of cnn.pt" in text
    assert "other machine" in text
    assert "<b>" in text
    stored = json.loads(glyphpress("report", *folders, "--json").out)
    assert stored["schema"] == "glyphpress/report-runs/1"
    assert stored["lines"][1]["not_comparable"]["cost"] == ["machine"]
    assert glyphpress("report", *folders, "-o", page).code == 2
    for words, advice in (
        ((folders[0], folders[0]), "given twice"),
        ((*folders, "--open"), "name it with -o"),
        ((folders[0], tmp_path / "x.npz"), "only files of timings"),
        ((folders[0], tmp_path), "no report there"),
        ((*folders, "-o", tmp_path / "page.txt"), "should end in .html"),
    ):
        refused = glyphpress("report", *words)
        assert refused.code in (2, 3)
        assert advice in refused.err

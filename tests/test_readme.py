"""README is true: its command list, its table and its Python example come from what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.readme import RESULTS
from bench.readme import written as with_table
from toolchain.cli.reference import written as with_commands
from toolchain.report.report import Report

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_command_list_is_the_one_that_the_commands_give() -> None:
    assert "| `press` |" in README
    assert with_commands(README) == README, "run `make format`"


def test_the_table_is_the_one_that_was_measured() -> None:
    report = Report.load(RESULTS)
    assert report.dataset.images == 18_800
    assert all(f"| `{row.name}` |" in README for row in report.rows)
    assert with_table(README, report) == README, "run `make bench`"


@pytest.mark.slow
def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, emnist_root: Path) -> None:
    example = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert example
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GLYPHPRESS_DATA", str(emnist_root / "resplit"))
    exec(compile(example[1], "README.md", "exec"), {})
    assert (tmp_path / "out" / "report.md").is_file()

"""README is true: its command list, its table and its Python example come from what is there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from bench.example import examples, run
from bench.readme import RESULTS
from bench.readme import with_new_table as with_table
from calibration.load import load
from tests.fixtures.official_files import write_split
from toolchain.cli.reference import with_commands
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
def test_row41_the_examples_are_what_their_commands_print(emnist_root: Path) -> None:
    shown = examples(README)
    assert {example.split()[2] for example in shown} >= {"press", "gate"}
    assert [_lasting(example) for example in run(README, f"{emnist_root}/resplit:balanced")] == list(
        map(_lasting, shown)
    )


MEASURED = re.compile(
    r"(?<!margin of )(?<!limit of )(?<!with )(?<![\d.])-?[\d.]+ (?:[nmu]?s|%|pp|dB)(?!\w)"
    r"|\b\d+ (?:lost|gained|worse|better|answers)\b|-?\b\d+\.\d{2,3}\b|'.'|\(\d+\)"
)


def _lasting(example: str) -> list[list[str]]:
    """Return the words of an example's lines, but for what another machine may measure otherwise.

    What stays: every command, column, name, size, limit, count of images and digest.
    """
    lines = []
    for line in example.replace("  winner", "").splitlines():
        first = line.split(" ", 1)[0]
        if first in {"worst", "confused", "winner:", "by"}:
            lines.append([first])
        elif not line.startswith(("NOT QUIET", "slower than")):
            lines.append(MEASURED.sub("#", line).split())
    return lines


@pytest.mark.slow
def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, emnist_root: Path) -> None:
    example = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert example
    monkeypatch.chdir(tmp_path)
    # On a tenth of the images: the commands above have just pressed with all of them.
    for split in ("train", "test"):
        whole = load(f"{emnist_root / 'resplit'}:balanced", split)
        few = whole.take(np.random.default_rng(0).permutation(len(whole))[:1880], "few")
        write_split(tmp_path / "data", "balanced", split, few.images[:], few.labels)
    monkeypatch.setenv("GLYPHPRESS_DATA", str(tmp_path / "data"))
    exec(compile(example[1], "README.md", "exec"), {})
    assert (tmp_path / "out" / "report.md").is_file()

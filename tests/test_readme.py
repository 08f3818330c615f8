"""README and the tutorials are true: what they show is what their commands print, and README stays short."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from bench.example import PAGES, all_examples, examples, run
from bench.recipes import PAGE, RESULTS, with_new_table
from calibration.load import load
from tests.fixtures.official_files import write_split
from toolchain.report.report import Report

ROOT = Path(__file__).resolve().parents[1]
PYTHON_PAGE = ROOT / "docs" / "reference" / "python.md"
README = (ROOT / "README.md").read_text(encoding="utf-8")
HEADINGS = [
    "Install",
    "Your model in three commands",
    "How to read the table",
    "Put it on the device",
    "CI in ten lines",
    "Where to go next",
]


def test_readme_is_short_and_in_order() -> None:
    assert len(README.split()) < 900
    assert re.findall("^## (.*)$", README, re.MULTILINE) == HEADINGS
    title, *lines, picture = filter(None, README.partition("## ")[0].splitlines())
    assert (title, len(lines), picture[:2]) == ("# glyphpress", 2, "![")
    assert "`make test`" in README


def test_the_table_is_the_one_that_was_measured() -> None:
    page, report = PAGE.read_text(encoding="utf-8"), Report.load(RESULTS)
    assert report.dataset.images == 18_800
    assert all(f"| `{row.name}` |" in page for row in report.rows)
    assert with_new_table(page, report) == page, "run `make bench`"


def test_every_output_on_a_page_is_of_an_example_that_runs() -> None:
    shown = [path for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")] if "design" not in path.parts]
    with_examples = {path for path in shown if examples(path.read_text(encoding="utf-8"))}
    assert with_examples <= {*PAGES}


@pytest.mark.slow
@pytest.mark.timeout(900)  # on a busy machine
def test_row41_the_examples_are_what_their_commands_print(emnist_root: Path) -> None:
    shown = all_examples()
    assert {example.split()[2] for example in shown} >= {"press", "gate", "profile", "compare"}
    new = run(shown, f"{emnist_root}/resplit:balanced")
    assert [_lasting(example) for example in new] == list(map(_lasting, shown))


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
        if first in {"worst", "confused", "winner:", "by", "saved"} or "cores, " in line:
            lines.append([first])
        elif (
            not line.startswith(("NOT QUIET", "slower than", "not shown", "taken out of"))
            and "samples are too few" not in line
        ):
            lines.append(MEASURED.sub("#", line).split())
    return lines


@pytest.mark.slow
def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, emnist_root: Path) -> None:
    example = re.search(r"```python\n(.*?)```", PYTHON_PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert example
    monkeypatch.chdir(tmp_path)
    # On a tenth of the images: the commands above have just pressed with all of them.
    for split in ("train", "test"):
        whole = load(f"{emnist_root / 'resplit'}:balanced", split)
        few = whole.take(np.random.default_rng(0).permutation(len(whole))[:1880], "few")
        write_split(tmp_path / "data", "balanced", split, few.images[:], few.labels)
    monkeypatch.setenv("GLYPHPRESS_DATA", str(tmp_path / "data"))
    exec(compile(example[1], str(PYTHON_PAGE), "exec"), {})
    assert (tmp_path / "out" / "report.md").is_file()

"""Measure the table of recipes again: `make bench DATA=DIR:balanced`, about 15 minutes on two cores.

Presses the built-in model with every shipped recipe that trains no student, in both formats, on EMNIST's balanced
split. Every file is evaluated on all test images, and all files are timed in one interleaved run. `results/balanced/`
holds the report and the raw timings in nanoseconds; the table of `PAGE` is made from that report alone.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path

from targets.session import TimingPlan
from toolchain.cli.console import progress
from toolchain.commands.press import press
from toolchain.commands.press_request import PressRequest
from toolchain.core.context import RunContext
from toolchain.core.quantities import percent_text, size_text, time_text
from toolchain.recipe import shipped
from toolchain.report.press_report import drop_text, verdict_text
from toolchain.report.report import Report, Row

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference" / "results.md"
RESULTS = ROOT / "bench" / "results" / "balanced"
STORED = ("report.json", "timings.npz")
MARKS = "<!-- table: make bench -->\n", "<!-- end of table -->\n"
PLAN = TimingPlan(min_seconds=5.0, min_runs=2000, inner=1)


def measure(data: str) -> Report:
    """Press, judge and time; store the report and the samples."""
    # A student takes half an hour to train; bench/README.md has the results of those recipes.
    recipes = tuple(
        recipe
        for name, recipe in shipped().items()
        if name != "float" and not any(step.builds_student for step in recipe.shaping)
    )
    request = PressRequest(
        checkpoint="cnn-small", data=data, recipes=recipes, plan=PLAN, command=("make", "bench", "DATA=DIR:balanced")
    )
    with tempfile.TemporaryDirectory() as folder, progress() as listen:
        report = press(request, Path(folder) / "out", RunContext(progress=listen))
        RESULTS.mkdir(parents=True, exist_ok=True)
        for name in STORED:
            shutil.copy(Path(folder) / "out" / name, RESULTS / name)
    return report


def table(report: Report) -> str:
    """Return the Markdown table of a report."""
    head = ("file", "size", "of float", "accuracy", "drop [bound]", "p50", "p99", "p50 of float", "verdict")
    lines = [head, ("---",) * len(head), *map(_cells, report.rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cells(row: Row) -> tuple[str, ...]:
    times = ["-" if ns is None else time_text(ns / 1e9) for ns in (row.p50_ns, row.p99_ns)]
    ratio = "-" if row.p50_ratio is None else f"{row.p50_ratio:.2f}"
    if row.p50_ratio_interval:
        ratio += " [{:.2f}, {:.2f}]".format(*row.p50_ratio_interval)
    return (
        f"`{row.name}`",
        size_text(row.bytes),
        f"{row.shrink:.2f}x",
        percent_text(row.accuracy),
        drop_text(row),
        *times,
        ratio,
        verdict_text(row),
    )


def with_new_table(page: str, report: Report) -> str:
    """Return a page's text with the table of this report."""
    start, end = map(re.escape, MARKS)
    return re.sub(f"({start}).*?({end})", lambda match: match[1] + table(report) + match[2], page, flags=re.S)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m bench.recipes DATA, where DATA is a balanced split such as emnist:balanced")
    measured = measure(sys.argv[1])
    PAGE.write_text(with_new_table(PAGE.read_text(encoding="utf-8"), measured), encoding="utf-8")
    print(table(Report.load(RESULTS)), end="")

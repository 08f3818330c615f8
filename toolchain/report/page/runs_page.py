"""The page of several presses of one model: how its files changed from run to run, and what may be compared."""

from __future__ import annotations

from collections.abc import Sequence

from toolchain.core.quantities import points_text, size_text, time_text
from toolchain.report.page.blocks import Cell, Lines, Page, Ruling, Table, Text, figure, section
from toolchain.report.page.draw import html
from toolchain.report.page.pictures import runs_picture
from toolchain.report.page.press_page import date_text
from toolchain.report.page.press_ruling import shipped_row
from toolchain.report.page.tables import outcome_cell
from toolchain.report.page.wording import joined
from toolchain.report.runs import Reason, Run, RunLine, cost_spoiled, cost_text, drop_text, run_lines, run_remarks
from toolchain.report.tables import DASH

_WORDS: dict[Reason, str] = {
    "model": "other model",
    "images": "other images",
    "machine": "other machine",
    "target": "other target",
}


def runs_html(runs: Sequence[Run]) -> str:
    """Return the page as an HTML document; the first run is what the others are compared with."""
    lines, remarks = run_lines(runs), run_remarks(runs)
    sections = [
        *section("runs", "Runs", _runs(runs)),
        *section("compare", "What may be compared", _comparable(lines, runs), Lines(remarks) if remarks else None),
        *section("over-time", "From run to run", runs_picture(lines)),
        *(one for each in _by_file(lines) for one in section(f"file-{each[0]}", each[1][0].file, _file(each[1]))),
    ]
    names = joined(list(dict.fromkeys(run.report.checkpoint.name for run in runs)))
    page = Page(f"{len(runs)} presses of {names}", _subtitle(runs), _ruling(runs, lines), (), sections)
    return html(page, runs[-1].report.tools)


def _subtitle(runs: Sequence[Run]) -> str:
    return f"Compared with {runs[0].name}, the first; what differs from it is said where it matters."


def _ruling(runs: Sequence[Run], lines: Sequence[RunLine]) -> Ruling:
    """Return how the file to ship changed from the first run to the last."""
    spoiled = sorted({_WORDS[reason] for line in lines for reason in line.differs})
    ends = [(run, shipped_row(run.report)) for run in (runs[0], runs[-1])]
    texts = [
        f"{run.name} ships {row.name}, {size_text(row.bytes)}, drop at most {points_text(row.bound)} pp"
        if row and row.bound is not None
        else f"{run.name} ships {row.name if row else 'nothing'}"
        for run, row in ends
    ]
    status = f"Not everything may be compared: {joined(spoiled)}" if spoiled else "These runs may be compared"
    return Ruling(status, "unsure" if spoiled else "pass", f"{texts[0]}; {texts[1]}.")


def _runs(runs: Sequence[Run]) -> Table:
    rows = []
    for run in runs:
        report, best = run.report, shipped_row(run.report)
        machine = report.machine
        rows.append(
            [
                Cell(run.name),
                Cell(date_text(report.created) if report.created else "not recorded"),
                Cell(f"{report.checkpoint.name}, sha256 {report.checkpoint.sha256[:8]}…"),
                Cell(f"{report.dataset.images:,} of {report.dataset.origin}, sha256 {report.dataset.sha256[:8]}…"),
                Cell(str(machine.get("board") or machine.get("cpu") or "not recorded")),
                Cell(best.name if best else "none"),
            ]
        )
    headings = ("run", "pressed", "checkpoint", "test images", "machine", "ships")
    return Table("The first run is what the others are compared with", headings, rows, wide=True)


def _comparable(lines: Sequence[RunLine], runs: Sequence[Run]) -> Text:
    if any(line.differs for line in lines):
        return Text("A figure with a mark may not be compared with the first run's; the mark says why.")
    return Text(
        f"All {len(runs)} runs are of one model, on the same test images and the same machine: sizes, drops, ratios of "
        "times and instructions may be compared."
    )


def _by_file(lines: Sequence[RunLine]) -> list[tuple[int, list[RunLine]]]:
    files = dict.fromkeys(line.file for line in lines)
    return [(number, [line for line in lines if line.file == file]) for number, file in enumerate(files, 1)]


def _file(lines: Sequence[RunLine]) -> Table:
    first = lines[0].row
    counted = any(line.row.instructions is not None for line in lines)
    rows = []
    for line in lines:
        row = line.row
        change = "" if row.bytes == first.bytes or line.spoiled("size") else f" ({row.bytes / first.bytes - 1:+.1%})"
        verdict = outcome_cell(row.outcome, without="baseline" if row.baseline else "not judged")
        cost = Cell(cost_text(line), row.instructions_ratio if counted else row.p50_ratio)
        rows.append(
            [
                Cell(line.run),
                _marked(Cell(size_text(row.bytes) + change, row.bytes), line.spoiled("size")),
                _marked(Cell(drop_text(line), row.drop), line.spoiled("drop")),
                _marked(cost, cost_spoiled(line)),
                _marked(
                    figure(row.instructions, lambda count: f"{count:,.0f}")
                    if counted
                    else figure(row.p50_ns, lambda ns: time_text(ns / 1e9)),
                    cost_spoiled(line),
                ),
                Cell(verdict.text, verdict.key, verdict.tone, mark="winner" if row.winner else ""),
            ]
        )
    headings = ("run", "size", "drop", "of float", "instructions" if counted else "P50", "verdict")
    caption = (
        "drop: against the float baseline of its own run, with its 95 % interval; of float: "
        f"{'instructions' if counted else 'time'} as a share of that baseline's"
    )
    return Table(caption, headings, rows, headings[1:-1], wide=True, sortable=True)


def _marked(cell: Cell, reasons: Sequence[Reason]) -> Cell:
    """Return the cell, marked where its figure may not be compared."""
    if not reasons or cell.text == DASH:
        return cell
    return Cell(cell.text, cell.key, "quiet", mark=", ".join(_WORDS[reason] for reason in reasons))

"""The report of a press on a terminal: what was pressed, then one line per artifact."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from toolchain.core.quantities import macs_text, percent_text, points_text, size_text, time_text
from toolchain.formats.inspection import QUICK, packed_remark
from toolchain.report.report import Report, Row
from toolchain.report.terminal import STYLE, plain_table, shown, unfold
from toolchain.stats.decision import Outcome

_WARNING = "warning: "
_COSTLIER = ("slower than", "more instructions than", "larger than")

NOT_MADE = "not made"


def show(report: Report, console: Console) -> None:
    """Print the report; colours only where `console` is a terminal."""
    unfold(console)
    for line in [*header(report), *(f"history     {line}" for line in history(report))]:
        console.print(shown(line))
    console.print()
    console.print(table(report))
    for line in [*reasons(report), *remarks(report)]:
        console.print(shown(line, style="red" if line.startswith((_WARNING, *_COSTLIER)) else ""))


def header(report: Report) -> list[str]:
    """Return the lines above the table: checkpoint, input, calibration."""
    source, preprocess = report.checkpoint, report.preprocess
    parts = [source.name, source.model]
    parts += [f"{source.parameters:,} parameters"] if source.parameters is not None else []
    parts += [macs_text(source.macs)] if source.macs is not None else []
    scale = "0 to 1" if preprocess.scale == "0-1" else "0 to 255"
    changes = (
        [f"mean {preprocess.mean:g}, std {preprocess.std:g}"] if (preprocess.mean, preprocess.std) != (0.0, 1.0) else []
    )
    changes += ["inverted"] if preprocess.invert else []
    note = f"  ({report.preprocess_note})" if report.preprocess_note else ""
    return [
        f"checkpoint  {'  '.join(part for part in parts if part)}  sha256 {_short(source.sha256)}",
        f"input       1x28x28 {', '.join([preprocess.orientation, scale, *changes])}{note}",
        f"test        {report.dataset.images:,} images, {report.dataset.origin}, "
        f"{len(report.dataset.classes)} classes, sha256 {_short(report.dataset.sha256)}",
        *([_calibration(report)] if report.calibration else []),
    ]


def history(report: Report) -> list[str]:
    """Return the lines on what was done to the model before the press, without the one that the header shows."""
    note = report.preprocess_note
    return [line for line in report.checkpoint.history if not (note and note in line)]


def _calibration(report: Report) -> str:
    facts = report.calibration or {}
    return (
        f"calibration {facts['images']:,} images of {facts['origin']}, seed {facts['seed']}, "
        f"sha256 {_short(facts['sha256'])}"
    )


def _short(sha256: str) -> str:
    return f"{sha256[:8]}…"


def table(report: Report) -> Table:
    """Return the table of artifacts."""
    packed, of_own, compared = packed_known(report), own_known(report), fidelity_known(report)
    cost = [cost_heading(report), "of float", *["of own float"] * of_own]
    read = ["accuracy", "drop [bound]", *["SQNR [equal]"] * compared]
    lines = plain_table(("artifact", "size", *["packed"] * packed, "of float", *read, *cost, "verdict"), gap=3)
    for row in report.rows:
        lines.add_row(
            shown(row.name),
            size_text(row.bytes),
            *[packed_text(row)] * packed,
            "-" if row.shrink is None else f"{row.shrink:.1f}x",
            percent_text(row.accuracy),
            shown(drop_text(row)),
            *[shown(fidelity_text(row), style="red" if row.fidelity and row.fidelity.collapsed else "")] * compared,
            cost_text(row),
            shown(ratio_text(row), style="red" if row.slower else ""),
            *[own_text(row)] * of_own,
            _verdict(row),
        )
    for failure in report.failures:
        dashes = ["-"] * (len(lines.columns) - 2)
        lines.add_row(shown(failure.name), *dashes, shown(NOT_MADE, style="bold red"))
    return lines


def cost_heading(report: Report) -> str:
    """Return what the costs of a report are: `p50`, or `instructions` if its target is emulated."""
    return "instructions" if any(row.instructions is not None for row in report.rows) else "p50"


def cost_text(row: Row) -> str:
    """Return the cost of an inference, or `-`."""
    if row.instructions is not None:
        return f"{row.instructions:,.0f}"
    return "-" if row.p50_ns is None else time_text(row.p50_ns / 1e9)


def ratio_text(row: Row) -> str:
    """Return the cost of an inference as a share of the float baseline's, or `-`."""
    ratio = row.p50_ratio if row.instructions_ratio is None else row.instructions_ratio
    return "-" if ratio is None else f"{ratio:.2f}"


def packed_known(report: Report) -> bool:
    """Return whether a report holds the packed size of any file."""
    return any(row.packed is not None for row in report.rows)


def packed_text(row: Row) -> str:
    """Return the packed size of the file, or `-`."""
    return "-" if row.packed is None else size_text(row.packed)


def own_known(report: Report) -> bool:
    """Return whether there are several formats, so that costs against float in the same runtime say more."""
    return len({row.format for row in report.rows if row.own_ratio is not None}) > 1


def own_text(row: Row) -> str:
    """Return the cost of an inference as a share of that of the float file in the same runtime, or `-`."""
    return "-" if row.own_ratio is None else f"{row.own_ratio:.2f}"


def drop_text(row: Row) -> str:
    """Return `0.03 [0.11] pp`, or `-` for the baseline."""
    if row.drop is None or row.bound is None:
        return "-"
    return f"{points_text(row.drop)} [{points_text(row.bound)}] pp"


def fidelity_known(report: Report) -> bool:
    """Return whether quantized files were compared with their float files."""
    return any(row.fidelity for row in report.rows)


def fidelity_text(row: Row) -> str:
    """Return `42.3 dB [99.6 %]`: SQNR of the logits and equal answers against its float file, or `-`."""
    return f"{row.fidelity.sqnr_text} [{row.fidelity.agreement_text}]" if row.fidelity else "-"


def verdict_text(row: Row) -> str:
    """Return the outcome, whether a limit that only warns did not pass, and whether the artifact won."""
    warned = any(verdict.action == "warn" and verdict.outcome is not Outcome.PASS for verdict in row.verdicts)
    outcome = "baseline" if row.baseline else str(row.outcome or "not judged")
    return outcome + " (warned)" * warned + "  winner" * row.winner


def _verdict(row: Row) -> Text:
    return shown(verdict_text(row), style=STYLE[row.outcome] if row.outcome else "")


def reasons(report: Report) -> list[str]:
    """Return a line for each file that is missing, and for each verdict that is not PASS: which limit, and why."""
    return [f"{failure.name}  {NOT_MADE}: {failure.reason}" for failure in report.failures] + [
        f"{row.name}  {verdict.outcome}  {verdict.limit}: {verdict.reason}"
        for row in report.rows
        for verdict in row.verdicts
        if verdict.outcome is not Outcome.PASS
    ]


def remarks(report: Report) -> list[str]:
    """Return the warnings, which files are slower or larger than float and why, and all notes."""
    lines, large = list(_slow(report)), list(filter(None, map(_large, report.rows)))
    lines += [f"larger than float: {', '.join(large)}"] if large else []
    lines += [f"{row.name}  {reason}" for row in report.rows for reason in row.reasons]
    shown_already = {*report.checkpoint.history, *report.notes}
    lines += [f"{row.name}  {note}" for row in report.rows for note in row.notes if note not in shown_already]
    lines = [*warnings(report), *lines]
    sizes, limit = [row.packed for row in report.rows], "a policy with [packed] measures it"
    unpacked = any(row.packed is None and row.bytes > QUICK for row in report.rows)
    packed = packed_remark(sizes, limit) if unpacked or packed_known(report) else ""
    own = "of own float: against the float file in the same runtime" if own_known(report) else ""
    return [*lines, *filter(None, (packed, own)), *report.notes]


def warnings(report: Report) -> list[str]:
    """Return a line for each file whose answers differ too much from those of its float file."""
    lines = [row.fidelity.warning(row.name) for row in report.rows if row.fidelity]
    return [f"{_WARNING}{line}" for line in lines if line]


def _slow(report: Report) -> Iterator[str]:
    """Yield a line on the files slower than the baseline, then on those slower than float in the same runtime."""
    word = "more instructions" if cost_heading(report) == "instructions" else "slower"
    first = report.rows[0]
    floats = {row.format: row for row in reversed(report.rows) if row.recipe == "float"}
    marked = [(first, row, ratio_text(row)) for row in report.rows if row.slower_than_baseline]
    marked += [
        (floats[row.format], row, own_text(row))
        for row in report.rows
        if row.slower_than_own and floats.get(row.format, first) is not first
    ]
    for base in dict.fromkeys(base.name for base, *_ in marked):
        listed = ", ".join(f"{row.name} ({ratio})" for slower_than, row, ratio in marked if slower_than.name == base)
        yield f"{word} than {base}: {listed}"


def _large(row: Row) -> str:
    times = [times for times in (row.shrink, row.own_shrink) if times is not None]
    return f"{row.name} ({1 / min(times):.2f} times its size)" if row.larger else ""

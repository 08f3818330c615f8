"""The report of a press as a table of its files: on a terminal, and with all details as `report.md`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from targets.host.text import shell_command, visible
from toolchain.core.quantities import macs_text, percent_text, points_text, size_text, time_text
from toolchain.evaluation.compare import Comparison
from toolchain.formats.inspection import QUICK
from toolchain.report.machine_facts import machine_facts
from toolchain.report.report import Report, Row
from toolchain.report.tables import DASH, STYLE, markdown_table, packed_remark, plain_table, print_lines, shown, unfold
from toolchain.stats.decision import Outcome

_WARNING = "warning: "
_COSTLIER = ("slower than", "more instructions than", "larger than")
_NOT_MADE = "not made"


def show_report(report: Report, console: Console) -> None:
    """Print the report; colours only where `console` is a terminal."""
    unfold(console)
    print_lines(console, [*_header(report), *(f"history     {line}" for line in history_lines(report)), ""])
    console.print(_table(report))
    for line in [*_reasons(report), *remarks(report)]:
        console.print(shown(line, style="red" if line.startswith((_WARNING, *_COSTLIER)) else ""))


def _header(report: Report) -> list[str]:
    """Return the lines above the table: checkpoint, input, images, calibration."""
    source = report.checkpoint
    parts = [source.name, source.model]
    parts += [f"{source.parameters:,} parameters"] if source.parameters is not None else []
    parts += [macs_text(source.macs)] if source.macs is not None else []
    lines = [
        f"checkpoint  {'  '.join(part for part in parts if part)}  sha256 {_short(source.sha256)}",
        f"input       {input_text(report)}",
        f"test        {report.dataset.images:,} images, {report.dataset.origin}, "
        f"{len(report.dataset.classes)} classes, sha256 {_short(report.dataset.sha256)}",
    ]
    if facts := report.calibration:
        lines.append(
            f"calibration {facts['images']:,} images of {facts['origin']}, seed {facts['seed']}, "
            f"sha256 {_short(facts['sha256'])}"
        )
    return lines


def input_text(report: Report) -> str:
    """Return how the model takes its images: shape, orientation, scale, and how that was found."""
    preprocess = report.preprocess
    scale = "0 to 1" if preprocess.scale == "0-1" else "0 to 255"
    changes = (
        [f"mean {preprocess.mean:g}, std {preprocess.std:g}"] if (preprocess.mean, preprocess.std) != (0.0, 1.0) else []
    )
    changes += ["inverted"] if preprocess.invert else []
    note = f"  ({report.preprocess_note})" if report.preprocess_note else ""
    return f"1x28x28 {', '.join([preprocess.orientation, scale, *changes])}{note}"


def history_lines(report: Report) -> list[str]:
    """Return the lines on what was done to the model before the press, without the one that the header shows."""
    note = report.preprocess_note
    return [line for line in report.checkpoint.history if not (note and note in line)]


def _short(sha256: str) -> str:
    return f"{sha256[:8]}…"


@dataclass(frozen=True)
class _Column:
    """A column of the table of files.

    heading: on a terminal; empty where the column is in Markdown only. markdown: the heading there, if it differs.
    """

    heading: str
    text: Callable[[Row], str]
    markdown: str = ""
    style: Callable[[Row], str] = lambda _: ""


def _columns(report: Report) -> list[_Column]:
    """Return the columns of the table; those that no file fills are left out."""
    cost = _cost_heading(report)
    packed = _Column("packed", packed_text)
    fidelity = _Column(
        "SQNR [equal]",
        _fidelity_text,
        "SQNR [equal answers]",
        style=lambda row: "red" if row.fidelity and row.fidelity.collapsed else "",
    )
    return [
        _Column("artifact", lambda row: row.name),
        _Column("", lambda row: row.recipe, "recipe"),
        _Column("", lambda row: row.target, "target"),
        _Column("size", lambda row: size_text(row.bytes)),
        *[packed] * _packed_known(report),
        _Column("of float", lambda row: DASH if row.shrink is None else f"{row.shrink:.1f}x"),
        _Column("accuracy", lambda row: percent_text(row.accuracy)),
        _Column("drop [bound]", drop_text),
        *[fidelity] * any(row.fidelity for row in report.rows),
        _Column(cost, _cost_text),
        *[_Column("", lambda row: _time(row.p99_ns), "p99")] * (cost == "p50"),
        _Column("of float", _ratio_text, f"{cost} of float", style=lambda row: "red" if row.slower else ""),
        *[_Column("of own float", _own_text)] * own_float_known(report),
        _Column("verdict", verdict_text, style=lambda row: STYLE[row.outcome] if row.outcome else ""),
    ]


def _table(report: Report) -> Table:
    columns = [column for column in _columns(report) if column.heading]
    table = plain_table([column.heading for column in columns], gap=3)
    for row in report.rows:
        table.add_row(*(shown(column.text(row), style=column.style(row)) for column in columns))
    for failure in report.failures:
        dashes = [DASH] * (len(columns) - 2)
        table.add_row(shown(failure.name), *dashes, shown(_NOT_MADE, style="bold red"))
    return table


def _cost_heading(report: Report) -> str:
    """Return what the costs of a report are: `p50`, or `instructions` if its target is emulated."""
    return "instructions" if any(row.instructions is not None for row in report.rows) else "p50"


def _cost_text(row: Row) -> str:
    return _time(row.p50_ns) if row.instructions is None else f"{row.instructions:,.0f}"


def _time(nanoseconds: float | None) -> str:
    return DASH if nanoseconds is None else time_text(nanoseconds / 1e9)


def _ratio_text(row: Row) -> str:
    """Return the cost of an inference as a share of the float baseline's, or `-`."""
    ratio = row.p50_ratio if row.instructions_ratio is None else row.instructions_ratio
    return DASH if ratio is None else f"{ratio:.2f}"


def _packed_known(report: Report) -> bool:
    return any(row.packed is not None for row in report.rows)


def packed_text(row: Row) -> str:
    """Return the packed size of the file, or `-`."""
    return DASH if row.packed is None else size_text(row.packed)


def own_float_known(report: Report) -> bool:
    """Return whether there are several formats, so that costs against float in the same runtime say more."""
    return len({row.format for row in report.rows if row.own_ratio is not None}) > 1


def _own_text(row: Row) -> str:
    """Return the cost of an inference as a share of that of the float file in the same runtime, or `-`."""
    return DASH if row.own_ratio is None else f"{row.own_ratio:.2f}"


def drop_text(row: Row) -> str:
    """Return `0.03 [0.11] pp`, or `-` for the baseline."""
    if row.drop is None or row.bound is None:
        return DASH
    return f"{points_text(row.drop)} [{points_text(row.bound)}] pp"


def _fidelity_text(row: Row) -> str:
    """Return `42.3 dB [99.6 %]`: SQNR of the logits and equal answers against its float file, or `-`."""
    return f"{row.fidelity.sqnr_text} [{row.fidelity.agreement_text}]" if row.fidelity else DASH


def verdict_text(row: Row) -> str:
    """Return the outcome, whether a limit that only warns did not pass, and whether the artifact won."""
    warned = any(verdict.action == "warn" and verdict.outcome is not Outcome.PASS for verdict in row.verdicts)
    outcome = "baseline" if row.baseline else str(row.outcome or "not judged")
    return outcome + " (warned)" * warned + "  winner" * row.winner


def _missing(report: Report) -> list[str]:
    """Return a line for each file that could not be made: why."""
    return [f"{failure.name}  {_NOT_MADE}: {failure.reason}" for failure in report.failures]


def _reasons(report: Report) -> list[str]:
    """Return a line for each file that is missing, and for each verdict that is not PASS: which limit, and why."""
    return _missing(report) + [
        f"{row.name}  {verdict.outcome}  {verdict.limit}: {verdict.reason}"
        for row in report.rows
        for verdict in row.verdicts
        if verdict.outcome is not Outcome.PASS
    ]


def remarks(report: Report) -> list[str]:
    """Return the warnings, which files are slower or larger than float and why, and all notes."""
    warnings = [row.fidelity.warning(row.name) for row in report.rows if row.fidelity]
    lines = [f"{_WARNING}{line}" for line in warnings if line] + list(_slow(report))
    large = [_large(row) for row in report.rows if row.larger]
    lines += [f"larger than float: {', '.join(large)}"] if large else []
    lines += [f"{row.name}  {reason}" for row in report.rows for reason in row.reasons]
    # A press notes the choices of a recipe after its name.
    shown_already = {*report.checkpoint.history, *report.notes, *(note.partition(": ")[2] for note in report.notes)}
    lines += [f"{row.name}  {note}" for row in report.rows for note in row.notes if note not in shown_already]
    if _packed_known(report) or any(row.packed is None and row.bytes > QUICK for row in report.rows):
        lines.append(packed_remark([row.packed for row in report.rows], "a policy with [packed] measures it"))
    lines += ["of own float: against the float file in the same runtime"] * own_float_known(report)
    return [*filter(None, lines), *report.notes]


def _slow(report: Report) -> Iterator[str]:
    """Yield a line on the files slower than the baseline, then on those slower than float in the same runtime."""
    costlier = "more instructions" if _cost_heading(report) == "instructions" else "slower"
    first = report.rows[0]
    floats = {row.format: row for row in reversed(report.rows) if row.recipe == "float"}
    marked = [(first, row, _ratio_text(row)) for row in report.rows if row.slower_than_baseline]
    marked += [
        (floats[row.format], row, _own_text(row))
        for row in report.rows
        if row.slower_than_own and floats.get(row.format, first) is not first
    ]
    for base in dict.fromkeys(base.name for base, *_ in marked):
        listed = ", ".join(f"{row.name} ({ratio})" for slower_than, row, ratio in marked if slower_than.name == base)
        yield f"{costlier} than {base}: {listed}"


def _large(row: Row) -> str:
    times = [times for times in (row.shrink, row.own_shrink) if times is not None]
    return f"{row.name} ({1 / min(times):.2f} times its size)"


def report_markdown(report: Report) -> str:
    """Return the whole report as one Markdown document."""
    sections = (
        "\n".join(
            f"- {visible(line)}" for line in [*_header(report), *(f"history: {step}" for step in history_lines(report))]
        ),
        _artifacts(report),
        _verdicts(report),
        *(_losses(comparison) for comparison in report.comparisons),
        _facts("Machine", dict(machine_facts(report.machine))),
        _facts("Tools", report.tools),
        _reproduce(report),
    )
    return "\n\n".join([f"# {visible(report.checkpoint.name)}, pressed", *filter(None, sections)]) + "\n"


def _artifacts(report: Report) -> str:
    columns = _columns(report)
    rows = [[column.text(row) for column in columns] for row in report.rows]
    rows += [[failure.name, *[DASH] * (len(columns) - 2), _NOT_MADE] for failure in report.failures]
    table = _escaped_table([column.markdown or column.heading for column in columns], rows)
    notes = "".join(f"\n- {_escaped(note)}" for note in [*_missing(report), *remarks(report)])
    return f"## Artifacts\n\n{table}" + (f"\n{notes}" if notes else "")


def _verdicts(report: Report) -> str:
    rows = [
        [row.name, verdict.limit, str(verdict.outcome), verdict.action, verdict.reason]
        for row in report.rows
        for verdict in row.verdicts
    ]
    return f"## Verdicts\n\n{_escaped_table(['artifact', 'limit', 'verdict', 'action', 'why'], rows)}" if rows else ""


def _losses(comparison: Comparison) -> str:
    """Return the classes with the largest drops and the new confusions of one candidate."""
    low, high = (points_text(bound) for bound in comparison.interval)
    summary = (
        f"of {comparison.images:,} images {comparison.lost:,} lost, {comparison.gained:,} gained, {comparison.flips:,} "
        f"answer{'s' * (comparison.flips != 1)} changed; drop "
        f"{points_text(comparison.drop)} pp, 95 % interval {low} to {high} pp."
    )
    rows = [
        [row.label, f"{row.images:,}", str(row.lost), str(row.gained), f"{points_text(row.drop)} pp"]
        for row in comparison.worst()
    ]
    parts = [f"## {visible(comparison.candidate)} against {visible(comparison.baseline)}", summary]
    if rows:
        parts.append(_escaped_table(["worst classes", "images", "lost", "gained", "drop"], rows))
    if comparison.confusions:
        parts.append(f"New confusions: {', '.join(_escaped(str(confusion)) for confusion in comparison.confusions)}.")
    return "\n\n".join(parts)


def _facts(title: str, facts: Mapping[str, str]) -> str:
    lines = [f"- {key}: {_escaped(value)}" for key, value in facts.items()]
    return f"## {title}\n\n" + "\n".join(lines) if lines else ""


def _reproduce(report: Report) -> str:
    digests = "\n".join(f"{row.sha256}  {visible(row.name)}" for row in report.rows)
    command = f"$ {shell_command(report.command)}\n" if report.command else ""
    return f"## Reproduce\n\n```\n{command}{digests}\n```"


def _escaped_table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return markdown_table([*map(_escaped, names)], [[*map(_escaped, row)] for row in rows])


def _escaped(text: str) -> str:
    """Return text that Markdown shows as it is: characters such as | and * are names of classes too."""
    text = "  ".join(map(visible, text.split("  ")))
    for mark in "\\|*_`<>[]":
        text = text.replace(mark, f"\\{mark}")
    return text

"""The report as Markdown: `report.md` beside the artifacts."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence

from targets.host.machine import COUNTERS
from targets.host.text import visible
from toolchain.core.quantities import percent_text, points_text, size_text, time_text
from toolchain.evaluation.compare import Comparison
from toolchain.report import gfm
from toolchain.report.report import Report
from toolchain.report.table import (
    NOT_MADE,
    cost_heading,
    cost_text,
    drop_text,
    fidelity_known,
    fidelity_text,
    header,
    history,
    own_known,
    own_text,
    packed_known,
    packed_text,
    ratio_text,
    remarks,
    verdict_text,
)


def markdown(report: Report) -> str:
    """Return the whole report as one Markdown document."""
    sections = (
        _pressed(report),
        _artifacts(report),
        _verdicts(report),
        *(_losses(comparison) for comparison in report.comparisons),
        _facts("Machine", {key: value for key, value in report.machine.items() if key not in COUNTERS}),
        _facts("Tools", report.tools),
        _reproduce(report),
    )
    return "\n\n".join([f"# {visible(report.checkpoint.name)}, pressed", *filter(None, sections)]) + "\n"


def _pressed(report: Report) -> str:
    lines = [f"- {visible(line)}" for line in header(report)]
    lines += [f"- history: {visible(step)}" for step in history(report)]
    return "\n".join(lines)


def _artifacts(report: Report) -> str:
    heading = cost_heading(report)
    latency, packed, of_own = heading == "p50", packed_known(report), own_known(report)
    compared = fidelity_known(report)
    names = ["artifact", "recipe", "target", "size", *["packed"] * packed, "of float", "accuracy", "drop [bound]"]
    names += ["SQNR [equal answers]"] * compared
    names += [heading, *["p99"] * latency, f"{heading} of float", *["of own float"] * of_own, "verdict"]
    rows = [
        [
            row.name,
            row.recipe,
            row.target,
            size_text(row.bytes),
            *[packed_text(row)] * packed,
            _ratio(row.shrink, "{:.1f}x"),
            percent_text(row.accuracy),
            drop_text(row),
            *[fidelity_text(row)] * compared,
            cost_text(row),
            *[_time(row.p99_ns)] * latency,
            ratio_text(row),
            *[own_text(row)] * of_own,
            verdict_text(row),
        ]
        for row in report.rows
    ]
    rows += [[failure.name, *["-"] * (len(names) - 2), NOT_MADE] for failure in report.failures]
    notes = "".join(f"\n- {_escaped(note)}" for note in [*_missing(report), *remarks(report)])
    return f"## Artifacts\n\n{_escaped_table(names, rows)}" + (f"\n{notes}" if notes else "")


def _missing(report: Report) -> list[str]:
    return [f"{failure.name}  {NOT_MADE}: {failure.reason}" for failure in report.failures]


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


def _facts(title: str, facts: Mapping[str, object]) -> str:
    lines = [f"- {key}: {_escaped(_plain(value))}" for key, value in facts.items()]
    return f"## {title}\n\n" + "\n".join(lines) if lines else ""


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _reproduce(report: Report) -> str:
    digests = "\n".join(f"{row.sha256}  {visible(row.name)}" for row in report.rows)
    command = f"$ {visible(shlex.join(report.command))}\n" if report.command else ""
    return f"## Reproduce\n\n```\n{command}{digests}\n```"


def _ratio(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _time(nanoseconds: float | None) -> str:
    return "-" if nanoseconds is None else time_text(nanoseconds / 1e9)


def _escaped_table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return gfm.table([*map(_escaped, names)], [[*map(_escaped, row)] for row in rows])


def _escaped(text: str) -> str:
    """Return text that Markdown shows as it is: characters such as | and * are names of classes too."""
    text = "  ".join(map(visible, text.split("  ")))
    for mark in "\\|*_`<>[]":
        text = text.replace(mark, f"\\{mark}")
    return text

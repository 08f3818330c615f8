"""The tables that several pages share: verdicts of limits, changes by class, files with digests, and the machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from toolchain.core.quantities import points_text
from toolchain.evaluation.compare import Comparison
from toolchain.gate.limit import Part, Verdict
from toolchain.report.judgement import allowed_text, value_text
from toolchain.report.machine_facts import machine_facts
from toolchain.report.page.blocks import TONES, Block, Cell, Facts, Folded, Lines, Table, Text, cells
from toolchain.stats.decision import Outcome

_RANK = {Outcome.FAIL: 0, Outcome.INCONCLUSIVE: 1, Outcome.PASS: 2}
_PARTS = 60
"""Parts of one limit that a page lists; a stored verdict holds all of them."""


def outcome_cell(outcome: Outcome | None, *, warns: bool = False, without: str = "not judged") -> Cell:
    """Return the cell of an outcome; without: what stands there if there is none."""
    if outcome is None:
        return Cell(without, key=3, tone="quiet")
    return Cell(f"{outcome}{' (only warns)' * warns}", key=_RANK[outcome], tone=TONES[outcome])


def limits_blocks(judged: Iterable[tuple[str, Verdict]]) -> list[Block]:
    """Return the limits that did not pass as a table, and those that passed, folded. judged: with file names."""
    verdicts = list(judged)
    open_ = [(name, verdict) for name, verdict in verdicts if verdict.outcome is not Outcome.PASS]
    passed = [(name, verdict) for name, verdict in verdicts if verdict.outcome is Outcome.PASS]
    blocks: list[Block] = []
    if open_:
        blocks.append(_limits_table("Limits that did not pass", open_))
        blocks += [_parts(name, verdict) for name, verdict in open_ if verdict.parts]
    elif passed:
        blocks.append(Text(f"All {len(passed)} verdicts are PASS." if len(passed) > 1 else "The verdict is PASS."))
    if passed:
        summary = f"{len(passed)} verdict{'s' * (len(passed) != 1)} that passed, each with its reason"
        blocks.append(Folded(summary, [_limits_table("Limits that passed", passed)]))
    return blocks


def _limits_table(caption: str, judged: Sequence[tuple[str, Verdict]]) -> Table:
    rows = [
        [
            Cell(name),
            Cell(verdict.limit),
            outcome_cell(verdict.outcome, warns=verdict.action == "warn"),
            Cell(value_text(verdict.limit, verdict.measured)),
            Cell(value_text(verdict.limit, verdict.bound)),
            Cell(allowed_text(verdict.limit, verdict.threshold)),
            Cell(verdict.reason),
        ]
        for name, verdict in judged
    ]
    headings = ("file", "limit", "verdict", "measured", "bound", "allowed", "why")
    return Table(caption, headings, rows, ("measured", "bound", "allowed"), wide=True)


def _parts(name: str, verdict: Verdict) -> Folded:
    """Return the parts of a limit that did not pass, the worst first, and how many passed."""

    def urgency(part: Part) -> tuple[int, float]:
        return _RANK[part.outcome], part.threshold - (part.measured if part.bound is None else part.bound)

    ranked = sorted((part for part in verdict.parts if part.outcome is not Outcome.PASS), key=urgency)
    rows = [
        [
            Cell(part.name),
            outcome_cell(part.outcome),
            Cell(value_text(verdict.limit, part.measured), part.measured),
            Cell(value_text(verdict.limit, part.bound), part.bound),
            Cell(f"{part.images:,}", part.images),
            Cell(part.note or "-"),
        ]
        for part in ranked[:_PARTS]
    ]
    headings = ("part", "verdict", "measured", "bound", "images", "note")
    table = Table(
        f"Parts of {verdict.limit}", headings, rows, ("measured", "bound", "images"), sortable=True, wide=True
    )
    more = [f"And {len(ranked) - _PARTS:,} more."] if len(ranked) > _PARTS else []
    passed = len(verdict.parts) - len(ranked)
    more += [f"{passed:,} part{'s' * (passed != 1)} passed."] if passed else []
    summary = f"{name}, {verdict.limit}: {len(verdict.parts)} parts, {len(ranked)} without a PASS"
    return Folded(summary, [*([table] if ranked else []), *([Text(" ".join(more), "quiet")] if more else [])])


def classes_blocks(comparison: Comparison) -> list[Block]:
    """Return what each class lost and gained, and the new confusions."""
    low, high = (points_text(bound) for bound in comparison.interval)
    summary = (
        f"{comparison.candidate} against {comparison.baseline}: of {comparison.images:,} images {comparison.lost:,} "
        f"were lost and {comparison.gained:,} gained; {comparison.flips:,} "
        f"answer{'s' * (comparison.flips != 1)} changed. Drop {points_text(comparison.drop)} pp, "
        f"95 % interval {low} to {high} pp."
    )
    changed = sorted(
        (row for row in comparison.per_class if row.lost or row.gained), key=lambda row: (-row.drop, -row.lost)
    )
    blocks: list[Block] = [Text(summary)]
    if changed:
        rows = [
            [
                Cell(named(row.label)),
                Cell(f"{row.images:,}", row.images),
                Cell(f"{row.lost:,}", row.lost),
                Cell(f"{row.gained:,}", row.gained),
                Cell(f"{points_text(row.drop)} pp", float(points_text(row.drop)), "fail" if row.drop > 0 else ""),
            ]
            for row in changed
        ]
        headings = ("class", "images", "lost", "gained", "drop")
        blocks.append(Table("Classes whose answers changed", headings, rows, headings[1:], sortable=True))
    unchanged = len(comparison.per_class) - len(changed)
    if unchanged:
        blocks.append(Text(f"{unchanged} of {len(comparison.per_class)} classes lost and gained nothing.", "quiet"))
    if comparison.confusions:
        blocks.append(Lines([f"New confusions: {', '.join(map(str, comparison.confusions))}"]))
    return blocks


def named(label: str) -> str:
    """Return a class for people: one of spaces alone, or none, as what it is."""
    if label.strip():
        return label
    return " ".join(f"U+{ord(character):04X}" for character in label) or "(no name)"


def digests_table(files: Iterable[tuple[str, int, int | None, str]]) -> Table:
    """Return a row for each file: name, bytes, packed bytes or None, sha256."""
    rows = [
        [
            Cell(name),
            Cell(f"{size:,}", size),
            Cell("-" if packed is None else f"{packed:,}", packed),
            Cell(sha256, tone="quiet"),
        ]
        for name, size, packed, sha256 in files
    ]
    return Table("Files", ("file", "bytes", "packed", "sha256"), rows, ("bytes", "packed"), wide=True)


def plain(caption: str, headings: Sequence[str], rows: Iterable[Sequence[str]], *, wide: bool = False) -> Table:
    """Return a table of texts."""
    return Table(caption, headings, [cells(row) for row in rows], wide=wide)


def machine_block(state: Mapping[str, Any]) -> Facts | None:
    """Return the facts of a machine, None if nothing is known."""
    facts = machine_facts(state)
    return Facts(facts) if facts else None

"""The page of a press, `report.html`: from its report, and from what the press measured where that is at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from targets.artifact import Artifact
from targets.host.text import argument, shell_command, shell_word
from toolchain.core.quantities import macs_text, percent_text, points_text, size_text, time_text
from toolchain.explain.explanation import LayerError
from toolchain.gate.gate import Evidence
from toolchain.profiling.per_operator import Breakdown
from toolchain.quantize.ranges import Ranges
from toolchain.report.page.blocks import (
    Block,
    Cell,
    Code,
    Facts,
    Folded,
    Lines,
    Page,
    Ruling,
    Section,
    Table,
    Text,
    figure,
    section,
)
from toolchain.report.page.draw import html
from toolchain.report.page.links import file_link
from toolchain.report.page.pictures import (
    class_picture,
    confusion_picture,
    flipped_blocks,
    flipped_folded,
    latency_picture,
    layer_blocks,
    operators_block,
    pareto_picture,
    ranges_picture,
    reliability_picture,
    timed,
)
from toolchain.report.page.press_ruling import press_figures, press_ruling, shipped_row
from toolchain.report.page.tables import (
    classes_blocks,
    digests_table,
    limits_blocks,
    machine_block,
    outcome_cell,
    plain,
)
from toolchain.report.press_report import history_lines, input_text, own_float_known, remarks
from toolchain.report.report import Report, Row
from toolchain.stats.decision import Outcome


@dataclass(frozen=True, eq=False)
class PressDetails:
    """What a press holds beside its report when it ends.

    evidence: on each row of the report but the first, the baseline, in order. file: the one that ships. layers: the
    errors of its layers against its float file, or why they are not known. ranges: those that it was calibrated with,
    None where it was not. operators: their times, or why they are not known.
    """

    evidence: Sequence[Evidence] = ()
    file: Artifact | None = None
    layers: Sequence[LayerError] | str = ()
    ranges: Ranges | None = None
    operators: Breakdown | str | None = None


def press_html(
    report: Report, details: PressDetails | None = None, *, folder: str = ".", warnings: Sequence[str] = ()
) -> str:
    """Return the page as an HTML document.

    details: without them the page has no pictures of answers, times, layers and ranges. folder: where the files of the
    press lie, seen from the page, in POSIX form. warnings: what a reader must know first.
    """
    details = details or PressDetails()
    evidence = details.evidence
    best = shipped_row(report)
    order = sorted(evidence, key=lambda proof: best is None or proof.pairs.candidate.name != best.name)
    sections = [
        *section("picture", "Size and cost", pareto_picture(report)),
        *section("files", "Files", _artifacts(report, folder), _remarks(report)),
        *section("limits", "Limits", *limits_blocks((row.name, one) for row in report.rows for one in row.verdicts)),
        *_classes(report),
        *section(
            "confusions", "Confusions, before and after", *(confusion_picture(proof.pairs) for proof in order[:1])
        ),
        *section("flipped", "Characters whose answer changed", *_flipped(order)),
        *section("layers", "Layers", *layer_blocks(details.file, details.layers, details.operators)),
        *section("latency", "Latency", latency_picture(timed(evidence))),
        *section("operators", "Time by operator", operators_block(details.operators)),
        *section("ranges", "Calibration ranges", ranges_picture(details.ranges)),
        *section("reliability", "Confidence", *(reliability_picture(proof.pairs) for proof in order[:1])),
        *section("machine", "What ran where", *_places(report, evidence)),
        *section("versions", "Versions and digests", *_versions(report)),
        *section("commands", "Do it again", *_commands(report)),
    ]
    title = f"{report.checkpoint.name}, pressed"
    ruling = press_ruling(report, folder)
    if warnings:
        ruling = Ruling("Not of these files", "fail", f"{'. '.join(warnings)}.")
    page = Page(title, _subtitle(report), ruling, press_figures(report), sections)
    return html(page, report.tools)


def _subtitle(report: Report) -> str:
    source = report.checkpoint
    model = [source.model]
    model += [f"{source.parameters:,} parameters"] if source.parameters is not None else []
    model += [macs_text(source.macs)] if source.macs is not None else []
    data = report.dataset
    made = f"{date_text(report.created)}. " if report.created else ""
    return (
        f"{made}{', '.join(filter(None, model))}. Judged on {data.images:,} images of {data.origin}, "
        f"{len(data.classes)} classes."
    )


def date_text(created: str) -> str:
    """Return the time of the press for people: `29 November 2026, 04:24 UTC`; another text as it is."""
    try:
        moment = datetime.fromisoformat(created).astimezone(UTC)
    except ValueError:
        return created
    return f"{moment.day} {moment:%B %Y, %H:%M} UTC"


def _artifacts(report: Report, folder: str) -> Table:
    counted = any(row.instructions is not None for row in report.rows)
    compared = any(row.fidelity for row in report.rows)
    costs = ("instructions", "of float") if counted else ("P50", "P99", "of float")
    headings = (
        *("file", "size", "smaller", "accuracy", "drop", "drop at most"),
        *(("equal answers",) if compared else ()),
        *costs,
        *(("of own float",) if own_float_known(report) else ()),
        "verdict",
    )
    rows = [_artifact_row(report, row, folder, counted=counted, compared=compared) for row in report.rows]
    for failure in report.failures:
        dashes = [figure(None, str)] * (len(headings) - 2)
        rows.append([Cell(failure.name), *dashes, Cell("not made", -1, "fail")])
    caption = (
        "drop: fall in accuracy against the float baseline, and its upper bound with 95 % confidence; of float: "
        f"{'instructions' if counted else 'time'} of an inference as a share of the baseline's"
    )
    return Table(caption, headings, rows, headings[1:-1], wide=True, sortable=True)


def _artifact_row(report: Report, row: Row, folder: str, *, counted: bool, compared: bool) -> list[Cell]:
    mark = "winner" if row.winner else "added" if row.added else ""
    warns = any(verdict.action == "warn" and verdict.outcome is not Outcome.PASS for verdict in row.verdicts)
    verdict = outcome_cell(row.outcome, without="baseline" if row.baseline else "not judged")
    ratio = row.instructions_ratio if counted else row.p50_ratio
    costs = (
        [figure(row.instructions, lambda count: f"{count:,.0f}")] if counted else [_time(row.p50_ns), _time(row.p99_ns)]
    )
    agreement = figure(None, str)
    if sqnr := row.fidelity:
        agreement = Cell(sqnr.agreement_text, sqnr.agreement, "fail" if sqnr.collapsed else "")
    return [
        Cell(row.name, mark=mark, link=file_link(row.name, folder)),
        figure(row.bytes, size_text),
        figure(row.shrink, lambda times: f"{times:.1f}x"),
        figure(row.accuracy, percent_text),
        figure(row.drop, lambda drop: f"{points_text(drop)} pp"),
        figure(row.bound, lambda bound: f"{points_text(bound)} pp"),
        *([agreement] if compared else []),
        *costs,
        _ratio(ratio, slower=row.slower_than_baseline),
        *([_ratio(row.own_ratio, slower=row.slower_than_own)] if own_float_known(report) else []),
        Cell(verdict.text, verdict.key, verdict.tone, mark="warned" * warns),
    ]


def _ratio(ratio: float | None, *, slower: bool) -> Cell:
    return figure(ratio, lambda ratio: f"{ratio:.2f}", tone="fail" if slower else "")


def _time(nanoseconds: float | None) -> Cell:
    return figure(nanoseconds, lambda ns: time_text(ns / 1e9))


def _remarks(report: Report) -> Lines | None:
    missing = [f"{failure.name} was not made: {failure.reason}" for failure in report.failures]
    # On a terminal two spaces follow the name of a file. What "packed" means stands below the table that has it.
    lines = [line.replace("  ", ": ", 1) for line in remarks(report) if not line.startswith("packed")]
    return Lines([*missing, *lines]) if missing or lines else None


def _classes(report: Report) -> list[Section]:
    """Return the changes by class of the winner, or of the first file, and those of the others, folded."""
    best = shipped_row(report)
    order = sorted(report.comparisons, key=lambda one: best is None or one.candidate != best.name)
    if not order:
        return []
    first, *others = order
    folded = [Folded(other.candidate, classes_blocks(other)) for other in others]
    return section("classes", "Change by class", *classes_blocks(first), class_picture(first), *folded)


def _flipped(evidence: Sequence[Evidence]) -> list[Block]:
    return [*flipped_blocks(evidence[0]), *flipped_folded(evidence[1:])] if evidence else []


def _places(report: Report, evidence: Sequence[Evidence]) -> list[Block | None]:
    facts = [
        ("Model", f"{report.checkpoint.name}, sha256 {report.checkpoint.sha256}"),
        ("Input", input_text(report)),
        ("Test images", f"{report.dataset.images:,} of {report.dataset.origin}, sha256 {report.dataset.sha256}"),
    ]
    if drawn := report.calibration:
        facts.append(
            (
                "Calibration",
                f"{drawn['images']:,} images of {drawn['origin']}, seed {drawn['seed']}, sha256 {drawn['sha256']}",
            )
        )
    history = history_lines(report)
    facts += [("History", "; ".join(history))] if history else []
    return [Facts(facts), machine_block(report.machine), _runtimes(report, evidence)]


def _runtimes(report: Report, evidence: Sequence[Evidence]) -> Table:
    """Return on which target and runtime each file was read and timed."""
    if not evidence:
        return plain("Targets", ("file", "target"), [(row.name, row.target) for row in report.rows])
    headings = ("file", "target", "runtime", "device", "threads to read", "threads to time")
    first = evidence[0]
    read = [first.pairs.baseline.runtime, *(proof.pairs.candidate.runtime for proof in evidence)]
    timed = [first.baseline_timings, *(proof.timings for proof in evidence)]
    rows = [
        (
            row.name,
            row.target,
            f"{facts.runtime} {facts.version}",
            facts.device,
            str(facts.threads),
            str(timings.facts.threads) if timings else "-",
        )
        for row, facts, timings in zip(report.rows, read, timed, strict=True)
    ]
    return plain("Targets and runtimes", headings, rows, wide=True)


def _versions(report: Report) -> list[Block | None]:
    tools = Facts(list(report.tools.items())) if report.tools else None
    digests = digests_table((row.name, row.bytes, row.packed, row.sha256) for row in report.rows)
    packed = [Text(f"{line[0].upper()}{line[1:]}.", "quiet") for line in remarks(report) if line.startswith("packed")]
    return [tools, digests, *packed]


def _commands(report: Report) -> list[Block | None]:
    """Return the press itself, a check of the files' digests, and what looks closer at the file to ship."""
    best = shipped_row(report) or report.rows[-1]
    digests = [f"{row.sha256}  {row.name}" for row in report.rows]
    folder = next(iter(_given(report.command, ("--out",))), "").rstrip("/")
    where = "where the press ran" if folder else "in the folder of the files"

    def path(row: Row) -> str:
        return argument(f"{folder}/{row.name}" if folder else row.name)

    data = _words(report.command, ("--data", "--classes", "--data-root"))
    closer = [f"netron {path(best)}", f"glyphpress profile {path(best)} --per-op"]
    if _given(report.command, ("--data",)) and not best.baseline:
        limits = _words(report.command, ("--policy", "--max-drop", "--max-size", "--max-p95"))
        files = f"--baseline {path(report.rows[0])} --candidate {path(best)}"
        explained = [f"glyphpress explain {path(base)} {path(best)} {data}" for base in _float_of(best, report)]
        closer = [f"glyphpress gate {files} {data} {limits}".rstrip(), *explained, *closer]
    return [
        Code("The press, into a new folder", [shell_command(report.command)]) if report.command else None,
        Code(f"Look closer, {where} (netron: pip install netron)", closer),
        Code("Check that the files are these: save as SHA256SUMS beside them, then sha256sum -c SHA256SUMS", digests),
    ]


def _float_of(row: Row, report: Report) -> list[Row]:
    """Return the float file that a file was made from; none where the press did not keep it, as of a pruned model."""
    if row.recipe == "float":
        return []
    floats = [base for base in report.rows if base.recipe == "float" and base.format == row.format]
    return [base for base in floats if row.fidelity is None or base.name == row.fidelity.base]


def _given(command: Sequence[str], options: Sequence[str]) -> list[str]:
    """Return the values of options of the press, in the order of the options."""
    values = []
    for option in options:
        values += [value for word, value in pairwise(command) if word == option]
        values += [word.removeprefix(f"{option}=") for word in command if word.startswith(f"{option}=")]
    return values


def _words(command: Sequence[str], options: Sequence[str]) -> str:
    """Return these options of the press with their values, for another command; empty where it had none."""
    return " ".join(f"{option} {shell_word(value)}" for option in options for value in _given(command, (option,)))

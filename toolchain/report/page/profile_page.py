"""The page of a profile: what each file costs on each target, with the times of operators where they were asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from targets.host.text import shell_command
from toolchain.core.quantities import counted, time_text
from toolchain.core.versions import tool_versions
from toolchain.evaluation.timings import not_quiet
from toolchain.profiling.measurements import MeasuredFile, Measurements
from toolchain.profiling.per_operator import Breakdown
from toolchain.report.charts.pareto import Point
from toolchain.report.page.blocks import Block, Cell, Code, Facts, Folded, Lines, Page, Ruling, Table, section
from toolchain.report.page.draw import html
from toolchain.report.page.pictures import latency_picture, network_block, operators_picture, points_picture
from toolchain.report.page.tables import digests_table, machine_block, plain
from toolchain.report.page.wording import sentences, size_words, time_words
from toolchain.report.tables import Columns
from toolchain.report.timings import measurements_table


def profile_html(measured: Measurements, breakdowns: Sequence[Breakdown] = (), *, command: Sequence[str] = ()) -> str:
    """Return the page as an HTML document. breakdowns: the operators of files; command: the command line."""
    timed = [(_name(file, measured), file.timed) for file in measured.files]
    latencies = [(name, timings) for name, timings in timed if timings]
    sections = [
        *section("picture", "Size and cost", _sizes_and_costs(measured)),
        *section("files", "Files", *_columns(measurements_table(measured))),
        *section("latency", "Latency", latency_picture(latencies)),
        *section("operators", "Time by operator", *_operators(breakdowns)),
        *section("machine", "What ran where", machine_block(_machine(measured)), _places(measured)),
        *section("versions", "Versions and digests", *_versions(measured)),
        *section("commands", "Do it again", Code("The profile", [shell_command(command)]) if command else None),
    ]
    names = list(dict.fromkeys(file.artifact.path.name for file in measured.files))
    targets = list(dict.fromkeys(file.target for file in measured.files))
    title = f"Profile of {names[0] if len(names) == 1 else f'{len(names)} files'}"
    subtitle = f"On {', '.join(targets)}; batch {measured.plan.batch}, {counted(measured.rounds, 'round')} in turns."
    return html(Page(title, subtitle, _ruling(measured), (), sections), tool_versions())


def _machine(measured: Measurements) -> dict[str, Any]:
    """Return the machine with the load at the end of the timing, as `machine_facts` calls it."""
    ends = [file.timed.machine.get("end", {}) for file in measured.files if file.timed]
    loads = [end["load_average"] for end in ends if "load_average" in end]
    rest = {key: value for key, value in measured.machine.items() if key != "load_average"}
    return rest | ({"load_average": loads[-1]} if loads else {})


def _name(file: MeasuredFile, measured: Measurements) -> str:
    """Return the file's name, with its target where there are several."""
    several = len({other.target for other in measured.files}) > 1
    return f"{file.artifact.path.name} on {file.target}" if several else file.artifact.path.name


def _ruling(measured: Measurements) -> Ruling | None:
    """Return which file is the fastest on the first target, against the first file there."""
    first = measured.files[0]
    there = [file for file in measured.files if file.target == first.target and not file.refused]
    base = there[0] if there else None
    compared = [file for file in there if file.ratio and file.timed]
    counted = [file for file in there if file.instructions_ratio is not None]
    busy = " ".join(not_quiet(measured.taints))
    status, tone = ("Measured on a busy machine", "unsure") if busy else ("Measured", "")
    if base is not None and compared:
        best = min(compared, key=lambda file: file.ratio.ratio if file.ratio else 1.0)
        ratio = best.ratio
        assert ratio, "chosen for it"
        interval = (ratio.low, ratio.high) if ratio.low is not None and ratio.high is not None else None
        pace = time_words(ratio.ratio, interval)
        size = size_words(base.artifact.size / best.artifact.size)
        text = f"Of {len(there)} files {best.artifact.path.name} {pace} as {base.artifact.path.name} on {best.target}."
        text = f"{text} It is {size} that one.{_elsewhere(measured, first.target)}"
    elif base is not None and counted:
        best = min(counted, key=lambda file: file.instructions_ratio or 1.0)
        share = f"{best.instructions_ratio:.2f} of the instructions of {base.artifact.path.name}"
        text = f"{best.artifact.path.name} takes {share} on {best.target}."
    elif base is not None and base.timed and (median := base.timed.percentile(50)):
        text = (
            f"{base.artifact.path.name} takes {time_text(median / 1e9)} on {base.target}, the median of an inference."
        )
    else:
        return None
    return Ruling(status, tone, sentences([text, f"{busy}." if busy else ""]))  # type: ignore[arg-type]


def _elsewhere(measured: Measurements, first: str) -> str:
    """Return a sentence for each other target: its fastest file against the first file there."""
    text = ""
    for target in dict.fromkeys(file.target for file in measured.files if file.target != first):
        there = [file for file in measured.files if file.target == target and file.timed]
        compared = [(file.ratio.ratio, file.artifact.path.name) for file in there if file.ratio]
        if compared:
            ratio, name = min(compared)
            text += f" On {target} {name} takes {ratio:.2f} times as long as {there[0].artifact.path.name}."
    return text


def _sizes_and_costs(measured: Measurements) -> Block | None:
    """Return the picture of sizes and latencies; of sizes and instructions where nothing was timed."""
    timed = [(file, file.timed.percentile(50)) for file in measured.files if file.timed]
    shown = [Point(_name(file, measured), file.artifact.size, cost) for file, cost in timed if cost is not None]
    if shown:
        return points_picture(shown, "ns")
    first = measured.files[0].target
    counted = [(file, file.instructions) for file in measured.files if file.instructions and file.target == first]
    shown = [Point(file.artifact.path.name, file.artifact.size, count.median) for file, count in counted]
    return points_picture(shown, "instructions")


def _columns(columns: Columns) -> list[Block]:
    """Return a table of the terminal as one of a page, and its remarks."""
    filled = columns.filled()
    rows = [[Cell(cell) for cell in row] for row in zip(*filled.values(), strict=True)]
    figures = [heading for heading in filled if heading not in columns.left]
    return [Table("Costs of each file", list(filled), rows, figures, wide=True), Lines(columns.remarks)]


def _operators(breakdowns: Sequence[Breakdown]) -> list[Block]:
    """Return the operators of the first file, and those of the others, folded."""
    shown: list[list[Block]] = [
        [
            operators_picture(breakdown),
            network_block(breakdown.artifact, breakdown.operators),
            Folded(
                f"{counted(len(breakdown.operators), 'operator')} in the order of execution",
                [_operator_table(breakdown)],
            ),
        ]
        for breakdown in breakdowns
    ]
    names = [f"{breakdown.artifact.path.name} on {breakdown.target}" for breakdown in breakdowns]
    others = [Folded(name, blocks) for name, blocks in zip(names[1:], shown[1:], strict=True)]
    return [*(shown[0] if shown else []), *others]


def _operator_table(breakdown: Breakdown) -> Table:
    rows = [
        [
            Cell(operator.kernel),
            Cell(operator.layer or "-"),
            Cell(time_text(operator.ns / 1e9) if operator.ns else "< 1 us", operator.ns),
            Cell(f"{operator.ns / breakdown.ns if breakdown.ns else 0.0:.1%}", operator.ns),
        ]
        for operator in breakdown.operators
    ]
    headings = ("operator", "layer", "time", "share")
    return Table(f"{breakdown.artifact.path.name} on {breakdown.target}", headings, rows, headings[2:], sortable=True)


def _places(measured: Measurements) -> Table:
    rows = [
        (
            file.artifact.path.name,
            file.target,
            f"{file.facts.runtime} {file.facts.version}" if file.facts else "-",
            file.facts.device if file.facts else "-",
            str(file.facts.threads) if file.facts else "-",
        )
        for file in measured.files
    ]
    return plain("Targets and runtimes", ("file", "target", "runtime", "device", "threads"), rows, wide=True)


def _versions(measured: Measurements) -> list[Block | None]:
    files = {file.artifact.path.name: file for file in measured.files}.values()
    rows = [(file.artifact.path.name, file.artifact.size, file.packed, file.artifact.sha256) for file in files]
    return [Facts(list(tool_versions("numpy", "onnxruntime", "ai-edge-litert").items())), digests_table(rows)]

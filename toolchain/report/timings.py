"""The table of a profile: what each file costs on each target, and how it answers there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from toolchain.core.quantities import size_text, time_text
from toolchain.core.visible import shown
from toolchain.evaluation.ratio import LatencyRatio
from toolchain.formats.packed import packed_remark
from toolchain.profiling.latency import PERCENTILES
from toolchain.profiling.measurements import MeasuredFile, Measurements

DASH = "-"


_LESS = ("p99.9", "p90", "first run", "packed", "p95 of first", "load", "p99", "memory", "p95")
"""Columns that a narrow terminal does without, the first of them first."""


def measurements_text(measurements: Measurements, *, width: int | None = None, colour: bool = False) -> str:
    """Return the table and its remarks. width: of the terminal, None where nothing limits it."""
    table, hidden = fitted(partial(measurements_table, measurements), _LESS, width)
    return unbroken(table, *hidden, *remarks(measurements), colour=colour)


def fitted(make: Callable[[Sequence[str]], Table], less: Sequence[str], width: int | None) -> tuple[Table, list[str]]:
    """Return a table without as many of the columns `less` as `width` asks for, and a line that names them.

    make: returns the table without columns.
    """
    table, without = make(()), list[str]()
    names = [name for name in less if name in [column.header for column in table.columns]]
    while width is not None and len(without) < len(names) and table_width(table) > width:
        without = names[: len(without) + 1]
        table = make(without)
    named = ", ".join(name for name in names if name in without)
    return table, [f"not shown at this width: {named}; a wider window or a file shows them"] if named else []


def table_width(table: Table) -> int:
    """Return how many characters a table takes where nothing is cut off."""
    console = Console(width=1000)
    return Measurement.get(console, console.options, table).maximum


def unbroken(table: Table, *lines: str, colour: bool = False) -> str:
    """Return a table, and lines, as wide as they need: a figure cut off in a narrow window would be no figure."""
    console = Console(width=1000, highlight=False, force_terminal=colour, no_color=not colour, markup=False)
    with console.capture() as capture:
        console.print(table, width=Measurement.get(console, console.options, table).maximum)
        for line in lines:
            console.print(shown(line))
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def measurements_table(measurements: Measurements, without: Sequence[str] = ()) -> Table:
    """Return one row a file, without the columns that no file fills; a dash stands where there is no figure.

    without: columns to leave out.

    Latencies of devices, instructions of emulated processors; of other simulated places only how they answer.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    headings, rows = measurements_cells(measurements, without)
    for heading in headings:
        left = heading in ("artifact", "target", "answers")
        table.add_column(heading, justify="left" if left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(shown, row))
    return table


def measurements_cells(measurements: Measurements, without: Sequence[str] = ()) -> tuple[list[str], list[list[str]]]:
    """Return the headings and the rows of the table."""
    filled = {heading: [text(file) for file in measurements.files] for heading, text in _COLUMNS.items()}
    filled = {heading: words for heading, words in filled.items() if set(words) != {DASH} and heading not in without}
    files = measurements.files
    names = {"artifact": [file.artifact.path.name for file in files], "target": [file.target for file in files]}
    columns = names | filled
    return list(columns), [list(row) for row in zip(*columns.values(), strict=True)]


def _time(file: MeasuredFile, name: str) -> str:
    return time_text(getattr(file.timed, name) / 1e9) if file.timed else DASH


def _percentile(file: MeasuredFile, name: str) -> str:
    ns = file.percentiles()[name]
    return time_text(ns / 1e9) if file.timed and ns is not None else DASH


def _of_first(file: MeasuredFile) -> str:
    if file.instructions_ratio is not None:
        return f"{file.instructions_ratio:.2f}"
    return ratio_text(file.ratio) if file.timed and file.ratio else DASH


def _answers(file: MeasuredFile) -> str:
    if file.refused:
        return file.refused
    words = f"{file.agreement}" if file.agreement else ""
    if file.facts and file.facts.simulated:
        return f"simulated: {words or 'a script'}"
    return words or DASH


_COLUMNS: dict[str, Callable[[MeasuredFile], str]] = {
    "size": lambda file: size_text(file.artifact.size),
    "packed": lambda file: size_text(file.packed) if file.packed is not None else DASH,
    "load": lambda file: _time(file, "load_ns"),
    "first run": lambda file: _time(file, "first_run_ns"),
    "memory": lambda file: size_text(file.peak_bytes) if file.peak_bytes is not None else DASH,
    **{f"p{q:g}": lambda file, name=f"p{q:g}": _percentile(file, name) for q in PERCENTILES},  # type: ignore[misc]
    "instructions": lambda file: f"{file.instructions.median:,.0f}" if file.instructions else DASH,
    "of first": _of_first,
    "p95 of first": lambda file: ratio_text(file.ratio_p95) if file.timed and file.ratio_p95 else DASH,
    "answers": _answers,
}


def ratio_text(ratio: LatencyRatio) -> str:
    """Return a ratio for people: `0.68 [0.66, 0.71]`, without the interval where there were too few rounds."""
    interval = "" if ratio.low is None or ratio.high is None else f" [{ratio.low:.2f}, {ratio.high:.2f}]"
    return f"{ratio.ratio:.2f}{interval}"


def remarks(measurements: Measurements) -> list[str]:
    """Return the lines below the table: where it ran and how, and why a dash is a dash."""
    facts = {(file.target, file.facts.runtime): file.facts for file in measurements.files if file.facts}
    batch = measurements.plan.batch
    threads = " or ".join(threads_text(n) for n in sorted({fact.threads for fact in facts.values()}))
    places = (f"{fact.target} ({fact.runtime} {fact.version}, {fact.device})" for fact in facts.values())
    how = f"{threads}, batch {batch}, {measurements.rounds} rounds in turns"
    lines = [f"{', '.join(places)}; {how}", machine_text(measurements)]
    if any(file.ratio for file in measurements.files if file.timed):
        lines.append(
            "of first: to the first file in the same runtime there; of latencies the geometric mean of the ratios of "
            "the middle three fifths of the rounds, 95 % interval"
        )
    lines.append(packed_remark([file.packed for file in measurements.files], "--packed measures it"))
    if any(file.instructions for file in measurements.files):
        images = f" of {batch} images" * (batch > 1)
        lines.append(f"instructions: of one inference{images} on one thread, emulated, median of 5; they are no time")
    if any(file.timed for file in measurements.files):
        lines.append("load, first run: once, in a fresh process each, without Python's imports")
    if any(file.peak_bytes is not None for file in measurements.files):
        unweighed = dict.fromkeys(file.target for file in measurements.files if file.facts and file.peak_bytes is None)
        lines.append(f"memory: not of {', '.join(unweighed)}, where nothing is a device" if unweighed else "")
    timed = [file.timed for file in measurements.files if file.timed]
    lines += crowded((one.facts.threads, one.machine.get("usable_cores", 0)) for one in timed)
    lines += not_quiet(measurements.taints)
    return [line for line in (*lines, *_reasons(measurements), *_dashes(measurements)) if line]


def not_quiet(taints: Sequence[str]) -> list[str]:
    """Return the line that marks times of a machine that was not quiet; none where it was."""
    return [f"NOT QUIET: {'; '.join(taints)}; latencies may be longer than they need be"] if taints else []


def threads_text(threads: int) -> str:
    """Return `1 thread` or `2 threads`."""
    return f"{threads} thread{'s' * (threads != 1)}"


def crowded(runs: Iterable[tuple[int, int]]) -> list[str]:
    """Return a line on more threads than cores, of (threads, usable cores or 0 where unknown); none where they fit."""
    over = [(threads, cores) for threads, cores in dict.fromkeys(runs) if 0 < cores < threads]
    return [
        f"{threads_text(threads)} on {cores} core{'s' * (cores != 1)}: they wait for each other; times are longer and "
        "vary more than with as many threads as cores"
        for threads, cores in over
    ]


def _reasons(measurements: Measurements) -> Iterator[str]:
    """Yield why a file is slower or larger than the first one in its runtime, or counts more, a line a reason."""
    first: dict[tuple[str, str], str] = {}
    for file in measurements.files:
        name = file.artifact.path.name
        base = first.setdefault((file.target, file.facts.runtime if file.facts else ""), name)
        slower = "is slower" if file.instructions_ratio is None else "takes more instructions"
        marks = " and ".join([slower] * file.slower + ["is larger"] * file.larger)
        for reason in file.reasons:
            yield f"{name} on {file.target} {marks} than {base}: {reason}"


def machine_text(measurements: Measurements) -> str:
    """Return this machine's state in a line; what could not be read is not there."""
    state = measurements.machine
    ends = [file.timings.machine for file in measurements.files if file.timings]
    pinned: list[int] = next((end["pinned"] for end in ends if "pinned" in end), [])
    loads = [state["load_average"][0]] if "load_average" in state else []
    loads += [end["end"]["load_average"][0] for end in ends[-1:] if "load_average" in end.get("end", {})]
    parts = [
        state.get("board") or state.get("cpu", ""),
        f"{state['cores']} cores" if "cores" in state else "",
        f"pinned to core {', '.join(map(str, pinned))}" if pinned else "",
        f"governor {state['governor']}" if "governor" in state else "",
        f"{state['mhz']:.0f} MHz" if "mhz" in state else "",
        f"{state['temperature_c']:.0f} C" if "temperature_c" in state else "",
        f"load {' to '.join(f'{load:.2f}' for load in loads)}" if loads else "",
    ]
    return ", ".join(part for part in parts if part)


def _dashes(measurements: Measurements) -> Iterator[str]:
    """Yield why percentiles are missing, a line a reason."""
    for file in measurements.files:
        missing = [name for name, ns in file.percentiles().items() if ns is None]
        if not (missing and file.timed):
            continue
        name, count, inner = f"{file.artifact.path.name} on {file.target}", len(file.timed.samples_ns), file.timed.inner
        reason = f"{count:,} samples are too few (at least ten must lie beyond a percentile); time for longer"
        if inner > 1:
            reason = f"each sample is the mean of {inner} inferences, too short for the clock one by one"
        yield f"{name}: no {', '.join(missing)}: {reason}"

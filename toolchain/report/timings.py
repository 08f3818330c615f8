"""What was timed as tables: a profile (also as CSV), stored runs, operators, and sweeps over threads and batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from rich.table import Table

from targets.host.machine import cpu_name
from targets.host.runtime_session import PROFILE_RUNS
from targets.host.text import one_line
from targets.session import Timings, taints_of
from toolchain.core.quantities import counted, size_text, time_text
from toolchain.core.versions import tool_versions
from toolchain.evaluation.timings import LatencyRatio, StoredRun, not_quiet
from toolchain.profiling.history import history, notes
from toolchain.profiling.latency import PERCENTILES, percentiles
from toolchain.profiling.measurements import MeasuredFile, Measurements
from toolchain.profiling.per_operator import Breakdown
from toolchain.profiling.sweep import SweepPoint
from toolchain.report.tables import (
    DASH,
    Columns,
    packed_remark,
    plain_table,
    ratio_text,
    shown,
    spreadsheet_csv,
    unbroken,
)

_TEXT_COLUMNS = ("artifact", "target", "run", "answers")
_DROPPED_FIRST = ("p99.9", "p90", "samples", "first run", "packed", "p95 of first", "load", "p99", "memory", "p95")


def measurements_table(measurements: Measurements) -> Columns:
    """Return one row for each file, and the remarks; a dash stands where there is no figure.

    Devices have latencies, emulated processors instructions; of other simulated targets only the answers are known.
    """
    files = measurements.files
    cells = {
        "artifact": [file.artifact.path.name for file in files],
        "target": [file.target for file in files],
        **{heading: [text(file) for file in files] for heading, text in _COLUMNS.items()},
    }
    return Columns(cells, _remarks(measurements), _TEXT_COLUMNS, _DROPPED_FIRST, ("answers",))


def _time(ns: float | None) -> str:
    return DASH if ns is None else time_text(ns / 1e9)


def _percentile(name: str, file: MeasuredFile) -> str:
    return _time(percentiles(file.timed)[name])


def _of_first(file: MeasuredFile) -> str:
    if file.instructions_ratio is not None:
        return f"{file.instructions_ratio:.2f}"
    return ratio_text(file.ratio) if file.timed and file.ratio else DASH


def _answers(file: MeasuredFile) -> str:
    if file.refused:
        return file.refused
    agreement = f"{file.agreement}" if file.agreement else ""
    if file.facts and file.facts.simulated:
        return f"simulated: {agreement or 'a script'}"
    return agreement or DASH


_COLUMNS: dict[str, Callable[[MeasuredFile], str]] = {
    "size": lambda file: size_text(file.artifact.size),
    "packed": lambda file: size_text(file.packed) if file.packed is not None else DASH,
    "load": lambda file: _time(file.timed.load_ns if file.timed else None),
    "first run": lambda file: _time(file.timed.first_run_ns if file.timed else None),
    "memory": lambda file: size_text(file.peak_bytes) if file.peak_bytes is not None else DASH,
    **{name: partial(_percentile, name) for name in (f"p{q:g}" for q in PERCENTILES)},
    "instructions": lambda file: f"{file.instructions.median:,.0f}" if file.instructions else DASH,
    "of first": _of_first,
    "p95 of first": lambda file: ratio_text(file.ratio_p95) if file.timed and file.ratio_p95 else DASH,
    "answers": _answers,
}


def _remarks(measurements: Measurements) -> list[str]:
    """Return the lines below the table: where and how the files ran, and why figures are missing."""
    facts = {(file.target, file.facts.runtime): file.facts for file in measurements.files if file.facts}
    batch = measurements.plan.batch
    threads = " or ".join(_threads_text(n) for n in sorted({fact.threads for fact in facts.values()}))
    places = (f"{fact.target} ({fact.runtime} {fact.version}, {fact.device})" for fact in facts.values())
    how = f"{threads}, batch {batch}, {counted(measurements.rounds, 'round')} in turns"
    lines = [f"{', '.join(places)}; {how}", *_machine_texts(measurements)]
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
        if any(
            file.timed and (file.timed.facts.runtime, file.timed.facts.device_type) == ("onnxruntime", "cpu")
            for file in measurements.files
        ):
            lines.append(
                "p50 and the like: the runtime's call, inputs and outputs bound; session.run takes 2 to 5 us more"
            )
    if any(file.peak_bytes is not None for file in measurements.files):
        unweighed = dict.fromkeys(file.target for file in measurements.files if file.facts and file.peak_bytes is None)
        lines.append(f"memory: not of {', '.join(unweighed)}, where nothing is a device" if unweighed else "")
    timed = [file.timed for file in measurements.files if file.timed]
    lines += _taken_out(
        (f"{file.artifact.path.name} on {file.target}", file.timed) for file in measurements.files if file.timed
    )
    lines += _crowded((timings.facts.threads, timings.machine.get("usable_cores", 0)) for timings in timed)
    lines += not_quiet(measurements.taints)
    return [line for line in (*lines, *_reasons(measurements), *_dashes(measurements)) if line]


def _taken_out(timed: Iterable[tuple[str, Timings]]) -> list[str]:
    """Return the line that says of how many samples time was taken out, and what p99 is with it; none if of none."""
    parts = []
    for name, timings in timed:
        if timings.interrupted:
            q = max((q for q in (50.0, 95.0, 99.0) if timings.percentile(q) is not None), default=None)
            raw = timings.percentile(q, raw=True) if q else None
            of = f"{len(timings.interrupted):,} of {len(timings.samples_ns):,} samples"
            parts.append(f"{name}: {of}" + (f", with it p{q:g} {time_text(raw / 1e9)}" if raw else ""))
    if not parts:
        return []
    return [
        f"taken out of percentiles and ratios: time in which the system ran others amid a sample ({'; '.join(parts)})"
    ]


def _threads_text(threads: int) -> str:
    return f"{counted(threads, 'thread')}"


def _crowded(runs: Iterable[tuple[int, int]]) -> list[str]:
    """Return a line for each run with more threads than cores. runs: threads, and usable cores or 0 if unknown."""
    over = [(threads, cores) for threads, cores in dict.fromkeys(runs) if 0 < cores < threads]
    return [
        f"{_threads_text(threads)} on {cores} core{'s' * (cores != 1)}: they wait for each other; times are longer and "
        "vary more than with as many threads as cores"
        for threads, cores in over
    ]


def _reasons(measurements: Measurements) -> Iterator[str]:
    """Yield one line for each reason why a file is slower or larger than the first one in its runtime."""
    first: dict[tuple[str, str], str] = {}
    for file in measurements.files:
        name = file.artifact.path.name
        base = first.setdefault((file.target, file.facts.runtime if file.facts else ""), name)
        slower = "is slower" if file.instructions_ratio is None else "takes more instructions"
        marks = " and ".join([slower] * file.slower + ["is larger"] * file.larger)
        for reason in file.reasons:
            yield f"{name} on {file.target} {marks} than {base}: {reason}"


def _machine_texts(measurements: Measurements) -> Iterator[str]:
    """Yield the state of each machine that files ran on, a line each, which begins with its name."""
    here: list[MeasuredFile] = []
    boards: dict[tuple[Any, ...], list[MeasuredFile]] = {}
    for file in measurements.files:
        state = file.timings.machine if file.timings else {}
        if any(key in state and state[key] != measurements.machine.get(key) for key in _IDENTITY):
            boards.setdefault(tuple(state.get(key) for key in _IDENTITY), []).append(file)
        else:
            here.append(file)
    if here:
        yield _named_machine("this machine", measurements.machine, here)
    for files in boards.values():
        yield _named_machine(files[0].target, files[0].timings.machine if files[0].timings else {}, files)


_IDENTITY = ("cpu", "board", "architecture", "cores", "memory_bytes", "kernel")
"""Keys of a machine's state that tell it from another one."""


def _named_machine(name: str, state: Mapping[str, Any], files: Sequence[MeasuredFile]) -> str:
    """Return a machine's name and state on one line, without what could not be read; empty where nothing was."""
    ends = [file.timings.machine for file in files if file.timings]
    pinned: list[int] = next((end["pinned"] for end in ends if "pinned" in end), [])
    loads = [state["load_average"][0]] if "load_average" in state else []
    loads += [end["end"]["load_average"][0] for end in ends[-1:] if "load_average" in end.get("end", {})]
    parts = [
        state.get("board") or state.get("cpu", ""),
        counted(state["cores"], "core") if "cores" in state else "",
        f"pinned to core {', '.join(map(str, pinned))}" if pinned else "",
        f"governor {state['governor']}" if "governor" in state else "",
        f"{state['mhz']:.0f} MHz" if "mhz" in state else "",
        f"{state['temperature_c']:.0f} C" if "temperature_c" in state else "",
        f"load {' to '.join(f'{load:.2f}' for load in loads)}" if loads else "",
    ]
    text = ", ".join(part for part in parts if part)
    return f"{name}: {text}" if text else ""


def _dashes(measurements: Measurements) -> Iterator[str]:
    """Yield one line for all files that lack the same percentiles for the same reason: which, and why."""
    groups: dict[tuple[str, bool], list[MeasuredFile]] = {}
    for file in measurements.files:
        missing = ", ".join(name for name, ns in percentiles(file.timings).items() if ns is None)
        if missing and file.timed:
            groups.setdefault((missing, file.timed.inner > 1), []).append(file)
    for (missing, repeated), files in groups.items():
        timed = [file.timed for file in files if file.timed]
        if repeated:
            inner = _span([each.inner for each in timed])
            reason = f"each sample is the mean of {inner} inferences, too short for the clock one by one"
        else:
            samples = _span([len(each.samples_ns) for each in timed])
            reason = f"{samples} samples are too few (at least ten must lie beyond a percentile); time for longer"
        names = ", ".join(f"{file.artifact.path.name} on {file.target}" for file in files)
        yield f"no {missing}: {reason}" if len(files) == len(measurements.files) else f"{names}: no {missing}: {reason}"


def _span(counts: Sequence[int]) -> str:
    """Return the least and the largest of counts: `4,224 to 9,097`."""
    return " to ".join(f"{count:,}" for count in sorted({min(counts), max(counts)}))


def measurements_csv(measurements: Measurements) -> str:
    """Return one line for each file and target, in bytes and nanoseconds; what is not known is empty."""
    return spreadsheet_csv([_figures(file) for file in measurements.files])


def _figures(file: MeasuredFile) -> dict[str, object]:
    timed, facts = file.timed, file.facts
    known: dict[str, object] = {
        "artifact": file.artifact.path.name,
        "sha256": file.artifact.sha256,
        "target": file.target,
        "runtime": f"{facts.runtime} {facts.version}" if facts else None,
        "device": facts.device if facts else None,
        "threads": facts.threads if facts else None,
        "batch": timed.batch if timed else None,
        "bytes": file.artifact.size,
        "packed_bytes": file.packed,
        "memory_bytes": file.peak_bytes,
        "load_ns": timed.load_ns if timed else None,
        "first_run_ns": timed.first_run_ns if timed else None,
        "samples": len(timed.samples_ns) if timed else None,
        "interrupted_samples": len(timed.interrupted) if timed else None,
    }
    known |= {f"{name}_ns": ns for name, ns in percentiles(timed).items()}
    known |= {f"raw_{name}_ns": ns for name, ns in percentiles(timed, raw=True).items()}
    known |= {"instructions": file.instructions.median if file.instructions else None}
    known |= _ratio_columns("of_first", file.ratio if timed else None)
    known |= _ratio_columns("p95_of_first", file.ratio_p95 if timed else None)
    return known | {"instructions_of_first": file.instructions_ratio, "refused": file.refused}


def _ratio_columns(name: str, ratio: LatencyRatio | None) -> dict[str, object]:
    parts = (ratio.ratio, ratio.low, ratio.high) if ratio else (None, None, None)
    return dict(zip((name, f"{name}_low", f"{name}_high"), parts, strict=True))


def operators_text(breakdowns: Sequence[Breakdown], *, colour: bool = False) -> str:
    """Return a table for each artifact on each target, and what the figures are."""
    tables = [
        f"{one_line(_heading(breakdown))}\n{unbroken(_operator_table(breakdown), colour=colour)}"
        for breakdown in breakdowns
    ]
    note = (
        f"mean of the middle three fifths of {PROFILE_RUNS} inferences, by the runtime's own profiler: it counts whole "
        "microseconds, and its own work (some 2 us an operator in ONNX Runtime) is in them"
    )
    taints = [
        f"{breakdown.artifact.path.name} on {breakdown.target}: " * (len(breakdowns) > 1) + ", ".join(breakdown.taints)
        for breakdown in breakdowns
        if breakdown.taints
    ]
    crowds = _crowded((breakdown.threads, breakdown.cores) for breakdown in breakdowns)
    tools = ", ".join(f"{name} {version}" for name, version in tool_versions(*_RUNTIMES).items())
    notes = [note, f"{cpu_name()}; {tools}", *crowds, *not_quiet(taints)]
    return "\n\n".join([*tables, "\n".join(map(one_line, notes))])


_RUNTIMES = ("onnxruntime", "ai-edge-litert", "openvino")


def _heading(breakdown: Breakdown) -> str:
    threads = _threads_text(breakdown.threads)
    return f"{breakdown.artifact.path.name} on {breakdown.target}, {threads}, batch {breakdown.batch}"


def _operator_table(breakdown: Breakdown) -> Table:
    table = plain_table(("operator", "layer", "time", "share"), left=("operator", "layer"))
    for operator in breakdown.operators:
        share = operator.ns / breakdown.ns if breakdown.ns else 0.0
        time = time_text(operator.ns / 1e9) if operator.ns else "< 1 us"
        table.add_row(shown(operator.kernel), shown(operator.layer or DASH), time, f"{share:.1%}")
    table.add_row("all", "", time_text(breakdown.ns / 1e9), "")
    return table


def sweep_text(points: Sequence[SweepPoint], *, colour: bool = False) -> str:
    """Return one row for each number of threads and batch size: time per inference and image, and the speed-up."""
    headings = ("artifact", "target", "threads", "batch", "p50", "an image", "speed-up")
    table = plain_table(headings, left=_TEXT_COLUMNS)
    for point in points:
        labels = [*map(shown, (point.artifact, point.target, str(point.threads), str(point.batch)))]
        if point.timings is None or point.image_ns is None:
            table.add_row(*labels, shown(point.refused or DASH), DASH, DASH)
            continue
        each, all_ = (time_text(ns / 1e9) for ns in (point.image_ns, point.image_ns * point.batch))
        table.add_row(*labels, all_, each, ratio_text(point.speed_up) if point.speed_up else DASH)
    timed = [point.timings for point in points if point.timings]
    named = [
        (f"{point.artifact} with {_threads_text(point.threads)}, batch {point.batch}", point.timings)
        for point in points
        if point.timings
    ]
    # A session in a process of its own calls its target by that process.
    facts = {point.target: point.timings.facts for point in points if point.timings}
    places = [f"{target} ({fact.runtime} {fact.version}, {fact.device})" for target, fact in facts.items()]
    rounds = max((len(each.blocks) for each in timed), default=0)
    notes = [f"{', '.join(places)}; {counted(rounds, 'round')} in turns for each batch size"] if timed else []
    if any(point.speed_up for point in points):
        notes += [
            "speed-up: images in the same time, against the first row of that file and target; 95 % interval",
            *["rows of another batch size were not timed in turns with it"]
            * (len({point.batch for point in points}) > 1),
        ]
    notes += _taken_out(named)
    notes += _crowded((timings.facts.threads, timings.machine.get("usable_cores", 0)) for timings in timed)
    return unbroken(table, *notes, *not_quiet(taints_of(timed)), colour=colour)


def history_dict(runs: Sequence[StoredRun]) -> dict[str, Any]:
    """Return the same as JSON types."""
    return {"lines": [line.to_dict() for line in history(runs)], "notes": list(notes(runs))}


def history_table(runs: Sequence[StoredRun]) -> Columns:
    """Return one row for each file in each stored run, and the remarks."""
    lines = history(runs)
    compares_runs = len({line.run for line in lines}) > 1
    cells = {
        "artifact": [line.row.artifact for line in lines],
        "target": [line.row.timings.facts.target for line in lines],
        **({"run": [line.run for line in lines]} if compares_runs else {}),
        "samples": [f"{len(line.row.timings.samples_ns):,}" for line in lines],
        **{f"p{q:g}": [_time(line.percentiles()[f"p{q:g}"]) for line in lines] for q in PERCENTILES},
        "of first run" if compares_runs else "of first": [
            ratio_text(line.ratio) if line.ratio else DASH for line in lines
        ],
    }
    explained = (
        "of first run: ratio of the medians of two runs, with a 95 % interval from how much their rounds differ; what "
        "changed on the machine between the runs is not in it"
        if len(runs) > 1
        else "of first: to the first file in the same runtime there, timed in turns with it, 95 % interval"
    )
    left_out = _taken_out(
        (f"{line.row.artifact} in {line.run}", line.row.timings)
        for line in lines
        if not line.row.timings.facts.simulated
    )
    return Columns(cells, [explained, *left_out, *notes(runs)], _TEXT_COLUMNS, _DROPPED_FIRST)

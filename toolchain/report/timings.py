"""The table of a profile: what each artifact costs to load, to run first and to run, and against the first."""

from __future__ import annotations

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from targets.target import Timings
from toolchain.quantities import size_text, time_text
from toolchain.verdict.latency import PERCENTILES, Profile
from toolchain.verdict.ratio import LatencyRatio

DASH = "-"
RATIOS = ("p50 of first", "p95 of first")


def profile_text(profile: Profile, *, colour: bool = False) -> str:
    """Return the table and its remarks as wide as they need: a figure cut off in a narrow window would be no figure."""
    console = Console(width=1000, highlight=False, force_terminal=colour, no_color=not colour)
    table = timings_table(profile)
    with console.capture() as capture:
        console.print(table, width=Measurement.get(console, console.options, table).maximum)
        for line in remarks(profile):
            console.print(line, markup=False)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def timings_table(profile: Profile) -> Table:
    """Return one row an artifact; a dash stands where the samples cannot carry a figure (see `remarks`)."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("artifact")
    for heading in ("size", "load", "first run", *(f"p{q:g}" for q in PERCENTILES), *RATIOS):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in profile.rows:
        timings = row.timings
        table.add_row(
            row.artifact.path.name,
            size_text(row.artifact.size),
            *(time_text(ns / 1e9) for ns in (timings.load_ns, timings.first_run_ns)),
            *(DASH if ns is None else time_text(ns / 1e9) for ns in row.percentiles().values()),
            *(DASH if ratio is None else ratio_text(ratio) for ratio in (row.ratio, row.ratio_p95)),
        )
    return table


def ratio_text(ratio: LatencyRatio) -> str:
    """Return a ratio for people: `0.68 [0.66, 0.71]`, without the interval where there were too few rounds."""
    interval = "" if ratio.low is None or ratio.high is None else f" [{ratio.low:.2f}, {ratio.high:.2f}]"
    return f"{ratio.ratio:.2f}{interval}"


def remarks(profile: Profile) -> list[str]:
    """Return the lines below the table: where it ran and how, and why a dash is a dash."""
    facts = [row.timings.facts for row in profile.rows]
    threads = facts[0].threads
    batch = profile.plan.batch
    where = ", ".join(dict.fromkeys(f"{fact.target} ({fact.runtime} {fact.version})" for fact in facts))
    lines = [
        f"{where}; {threads} thread{'s' * (threads != 1)}, batch {batch}, {profile.rounds} rounds in turns",
        machine_text(profile.rows[0].timings),
    ]
    if any(fact.simulated for fact in facts):
        lines.append("SIMULATED: these times are a script's, not a device's")
    if len(profile.rows) > 1:
        lines.append("of first: geometric mean of the ratios of the middle three fifths of the rounds, 95 % interval")
    if profile.cold:
        lines.append("load, first run: once, in a fresh process each, without Python's imports")
    return [line for line in (*lines, *_dashes(profile)) if line]


def machine_text(timings: Timings) -> str:
    """Return the machine's state in a line; what could not be read is not there."""
    state = timings.machine
    loads = [state[key][0] for key in ("load_average", "load_average_end") if key in state]
    parts = [
        state.get("board") or state.get("cpu", ""),
        f"{state['cores']} cores" if "cores" in state else "",
        f"governor {state['governor']}" if "governor" in state else "",
        f"{state['mhz']:.0f} MHz" if "mhz" in state else "",
        f"{state['temperature_c']:.0f} C" if "temperature_c" in state else "",
        f"load {' to '.join(f'{load:.2f}' for load in loads)}" if loads else "",
    ]
    return ", ".join(part for part in parts if part)


def _dashes(profile: Profile) -> list[str]:
    """Return why percentiles are missing, a line a reason."""
    lines = []
    for row in profile.rows:
        missing = [name for name, ns in row.percentiles().items() if ns is None]
        if not missing:
            continue
        name, count, inner = row.artifact.path.name, len(row.timings.samples_ns), row.timings.inner
        reason = f"{count:,} samples are too few (at least ten must lie beyond a percentile); time for longer"
        if inner > 1:
            reason = f"each sample is the mean of {inner} inferences, too short for the clock one by one"
        lines.append(f"{name}: no {', '.join(missing)}: {reason}")
    return lines

"""`glyphpress profile`: what an inference costs, place by place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click
from click.core import ParameterSource

from toolchain.cli import complete, console
from toolchain.cli.options import (
    BATCH,
    BATCH_NUMBERS,
    CORES,
    DURATION,
    FILE,
    RUNS,
    THREAD_NUMBERS,
    json_option,
    packed_option,
    run_options,
)

if TYPE_CHECKING:
    from targets.artifact import Artifact
    from targets.session import TimingPlan
    from toolchain.core.context import RunContext
    from toolchain.profiling.measurements import Measurements


@click.command()
@click.argument("artifacts", metavar="ARTIFACT...", nargs=-1, required=True, type=FILE)
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="TARGET",
    shell_complete=complete.TARGET,
    help="Target to measure on (repeatable). Default: ort-cpu for .onnx, litert-cpu for .tflite.",
)
@click.option("--batch", type=BATCH, default=1, show_default=True, help="Images per inference.")
@click.option("--seconds", type=DURATION, default="2s", show_default=True, help="Shortest time to measure each file.")
@click.option("--runs", type=RUNS, default=1000, show_default=True, help="Fewest samples of each file.")
@click.option(
    "--sweep-threads",
    type=THREAD_NUMBERS,
    metavar="N,N...",
    help="Measure with each of these numbers of threads, in fresh processes.",
)
@click.option(
    "--sweep-batch",
    type=BATCH_NUMBERS,
    metavar="N,N...",
    help="Measure with each of these batch sizes, in fresh processes.",
)
@click.option("--pin", type=CORES, default=(), metavar="N,N...", help="Run on these cores only, numbered from 0.")
@click.option("--per-op", is_flag=True, help="Show the time of each operator, by the runtime's own profiler.")
@click.option(
    "--memory",
    is_flag=True,
    help="Also measure the memory of opening and a first inference, in three fresh processes each.",
)
@packed_option
@click.option("--require", is_flag=True, help="Exit 4 if a target is not available; without it the table says why.")
@click.option("--strict", is_flag=True, help="Exit 3 if the machine was busy, hot or throttled.")
@click.option("-o", "--output", type=FILE, help="Write the raw nanoseconds to this .npz.")
@click.option("--markdown", type=FILE, help="Write the table and its remarks to this file as Markdown.")
@click.option("--csv", type=FILE, help="Write every figure to this file, in bytes and nanoseconds.")
@run_options(seed=True, threads=1, force=True)
@json_option
def profile(
    *,
    artifacts: tuple[Path, ...],
    batch: int,
    seconds: float,
    runs: int,
    sweep_threads: tuple[int, ...] | None,
    sweep_batch: tuple[int, ...] | None,
    per_op: bool,
    output: Path | None,
    markdown: Path | None,
    csv: Path | None,
    context: RunContext,
    as_json: bool,
    **words: Any,
) -> None:
    """Measure latency, or instructions on emulated processors, of model files on one or more targets.

    \b
    Example:
      glyphpress profile a.onnx b.onnx --target ort-cpu --target arm64:cortex-a72
      glyphpress profile a.onnx --per-op
    """
    from targets.session import TimingPlan
    from toolchain.core import files
    from toolchain.core.errors import UsageProblem
    from toolchain.profiling.latency import timeable
    from toolchain.report.timings import measurements_text

    outputs = [path for path in (output, markdown, csv) if path]
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise UsageProblem("--output, --markdown and --csv name one file; give each a file of its own")
    for made in outputs:
        for path in artifacts:
            files.refuse_source(made, path)
        files.refuse_existing(made, force=context.force)
    if output:
        files.refuse_unfit(output, ".npz", force=context.force)
    plan = TimingPlan(batch=batch, min_seconds=seconds, min_runs=runs, max_runs=max(runs, TimingPlan.max_runs))
    loaded = tuple(timeable(path) for path in artifacts)
    if not (per_op or sweep_threads or sweep_batch):
        _announce(batch, runs)
    if per_op:
        answer = _per_operator(loaded, words, batch, context)
    elif sweep_threads or sweep_batch:
        answer = _sweep(loaded, words, plan, context, threads=sweep_threads, batches=sweep_batch)
    else:
        measured = _profiled(loaded, words, plan, context)
        _write(measured, output, markdown, csv, force=context.force)
        text = measurements_text(measured, width=console.width(), colour=not console.plain())
        answer = "profile", measured.to_dict(), text
    kind, values, text = answer
    if as_json:
        console.emit(kind, values)
    else:
        console.show(text)


def _announce(batch: int, runs: int) -> None:
    """Say before the work how much of it is asked for, where it takes minutes."""
    if batch > 1 and batch * runs > MANY_IMAGES:
        console.say(
            f"each file runs {runs:,} times or more on {batch:,} images, {batch * runs:,} in all, which may take long; "
            "--runs takes fewer"
        )


MANY_IMAGES = 1_000_000
"""Images that a file reads in a second or in minutes."""

Answer = tuple[str, dict[str, Any], str]
"""Schema, values and text of a command."""


def _per_operator(loaded: tuple[Artifact, ...], words: dict[str, Any], batch: int, context: RunContext) -> Answer:
    from toolchain.profiling.per_operator import per_operator
    from toolchain.report.profile_tables import operators_text

    timed = ("memory", "packed", "strict", "output", "markdown", "csv", "seconds", "runs", "seed")
    _refuse_unused("--per-op", "sweep_threads", "sweep_batch", *timed)
    found = per_operator(
        loaded, words["targets"], threads=context.threads, batch=batch, pin=words["pin"], progress=context.progress
    )
    values = {"breakdowns": [one.to_dict() for one in found]}
    return "profile-operators", values, operators_text(found, colour=not console.plain())


def _sweep(
    loaded: tuple[Artifact, ...],
    words: dict[str, Any],
    plan: TimingPlan,
    context: RunContext,
    *,
    threads: tuple[int, ...] | None,
    batches: tuple[int, ...] | None,
) -> Answer:
    from targets.session import taints_of
    from toolchain.profiling.sweep import sweep
    from toolchain.report.profile_tables import sweep_text

    swept = ["threads"] * bool(threads) + ["batch"] * bool(batches)
    _refuse_unused("a sweep", "memory", "packed", "require", "strict", "output", "markdown", "csv", *swept)
    ways = (threads or (context.threads,), batches or (plan.batch,))
    points = sweep(
        loaded, words["targets"], *ways, plan=plan, seed=context.seed, pin=words["pin"], progress=context.progress
    )
    tainted = taints_of(point.timings for point in points if point.timings)
    values = {"points": [point.to_dict() for point in points], "taints": list(tainted)}
    return "profile-sweep", values, sweep_text(points, colour=not console.plain())


def _profiled(
    loaded: tuple[Artifact, ...], words: dict[str, Any], plan: TimingPlan, context: RunContext
) -> Measurements:
    from toolchain.commands.profile import ProfileRequest, profile_files

    request = ProfileRequest(loaded, plan=plan, seed=context.seed, threads=context.threads, **words)
    return profile_files(request, progress=context.progress)


def _write(
    measured: Measurements, output: Path | None, markdown: Path | None, csv: Path | None, *, force: bool
) -> None:
    from toolchain.core.files import write_whole
    from toolchain.report.measurement_files import measurements_csv, measurements_markdown

    if output:
        measured.save_samples(output, force=force)
    if markdown:
        write_whole(markdown, measurements_markdown(measured), force=force)
    if csv:
        write_whole(csv, measurements_csv(measured), force=force)


def _refuse_unused(way: str, *names: str) -> None:
    """Raise UsageProblem where an option was given that this way to profile has no use for."""
    from toolchain.core.errors import UsageProblem

    ctx = click.get_current_context()
    assert ctx, "a command is running"
    given = [name for name in names if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT]
    if given:
        option = given[0].replace("_", "-")
        raise UsageProblem(f"--{option} has no meaning with {way}; leave one of them out")

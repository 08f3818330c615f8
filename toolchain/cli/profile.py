"""`glyphpress profile`: what an inference costs, place by place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from toolchain.cli import complete, console
from toolchain.cli.options import DURATION, FILE, NUMBERS, force_option, json_option, seed_option, threads_option


@click.command()
@click.argument("artifacts", metavar="ARTIFACT...", nargs=-1, required=True, type=FILE)
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="TARGET",
    shell_complete=complete.TARGET,
    help="Where they run, more than once for a table of several; by default ort-cpu for .onnx, litert-cpu for .tflite.",
)
@threads_option(1)
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Images an inference.")
@click.option("--seconds", type=DURATION, default="2s", show_default=True, help="Least time for each artifact.")
@click.option("--runs", type=click.IntRange(1), default=1000, show_default=True, help="Least samples of each artifact.")
@click.option("--sweep-threads", type=NUMBERS, metavar="N,N...", help="Time on each number of threads, in processes.")
@click.option("--sweep-batch", type=NUMBERS, metavar="N,N...", help="Time in batches of each size, in processes.")
@click.option("--memory", is_flag=True, help="Weigh opening and a first inference too, in three fresh processes each.")
@click.option("--require", is_flag=True, help="Exit 4 where a target is not here; without it the table says why.")
@click.option("--strict", is_flag=True, help="Exit 3 where the machine was busy, hot or throttled.")
@click.option("-o", "--output", type=FILE, help="Write the raw nanoseconds to this .npz.")
@seed_option
@json_option
@force_option
def profile(
    *,
    artifacts: tuple[Path, ...],
    batch: int,
    seconds: float,
    runs: int,
    sweep_threads: tuple[int, ...] | None,
    sweep_batch: tuple[int, ...] | None,
    output: Path | None,
    as_json: bool,
    force: bool,
    **words: Any,
) -> None:
    """Cost artifacts where they run: latency on devices, instructions on emulated ones, and whether they answer alike.

    \b
    Example:
      glyphpress profile a.onnx b.onnx --target ort-cpu --target arm64:cortex-a72
    """
    from targets.target import TimingPlan
    from toolchain import files
    from toolchain.profiling.survey import SurveyRequest, survey
    from toolchain.profiling.sweep import sweep
    from toolchain.report.sweep import sweep_text
    from toolchain.report.timings import survey_text
    from toolchain.verdict.latency import timeable

    if output:
        files.refuse_existing(output, force=force)
    plan = TimingPlan(batch=batch, min_seconds=seconds, min_runs=runs, max_runs=max(runs, TimingPlan.max_runs))
    loaded = tuple(timeable(path) for path in artifacts)
    if sweep_threads or sweep_batch:
        ways = (sweep_threads or (words["threads"],), sweep_batch or (batch,))
        with console.progress() as progress:
            points = sweep(loaded, words["targets"], *ways, plan=plan, seed=words["seed"], progress=progress)
        if as_json:
            console.emit("profile-sweep", {"points": [point.to_dict() for point in points]})
        else:
            click.echo(sweep_text(points, colour=not console.plain()))
        return
    with console.progress() as progress:
        measured = survey(SurveyRequest(loaded, plan=plan, **words), progress=progress)
    if output:
        measured.save_samples(output, force=force)
    if as_json:
        console.emit("profile", measured.to_dict())
    else:
        click.echo(survey_text(measured, colour=not console.plain()))

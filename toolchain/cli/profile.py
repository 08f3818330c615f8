"""`glyphpress profile`: what an inference costs."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from toolchain.cli import console
from toolchain.cli.options import DURATION, FILE, force_option, json_option, seed_option, target_option, threads_option


@click.command()
@click.argument("artifacts", metavar="ARTIFACT...", nargs=-1, required=True, type=FILE)
@target_option
@threads_option(1)
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Images an inference.")
@click.option("--seconds", type=DURATION, default="2s", show_default=True, help="Least time for each artifact.")
@click.option("--runs", type=click.IntRange(1), default=1000, show_default=True, help="Least samples of each artifact.")
@click.option("-o", "--output", type=FILE, help="Write the raw nanoseconds to this .npz.")
@seed_option
@json_option
@force_option
def profile(
    *,
    artifacts: tuple[Path, ...],
    target: str | None,
    threads: int,
    batch: int,
    seconds: float,
    runs: int,
    output: Path | None,
    seed: int,
    as_json: bool,
    force: bool,
) -> None:
    """Time artifacts in turns: load, first run, percentiles of the latency, ratio to the first one.

    \b
    Example:
      glyphpress profile out/cnn.float.onnx out/cnn.static-int8.onnx
    """
    from targets import catalog
    from targets.target import TimingPlan
    from toolchain import files
    from toolchain.report import timings
    from toolchain.verdict import latency

    if output:
        files.refuse_existing(output, force=force)
    plan = TimingPlan(batch=batch, min_seconds=seconds, min_runs=runs, max_runs=max(runs, TimingPlan.max_runs))
    place = catalog.get(target) if target else None
    loaded = [latency.timeable(path) for path in artifacts]
    with console.progress() as progress:
        measured = latency.profile(
            loaded, target=place, threads=threads, plan=plan, seed=seed, cold=True, progress=progress
        )
    if output:
        measured.save_samples(output, force=force)
    if as_json:
        console.emit("profile", measured.to_dict())
        return
    click.echo(timings.profile_text(measured, colour=not console.plain()))

"""`glyphpress profile` and `probe-int8`: what an inference costs on each target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from toolchain.cli import complete, console, options, saved_profiles, values
from toolchain.cli.groups import FileGroup
from toolchain.cli.table_options import TableFiles, table_options

if TYPE_CHECKING:
    from toolchain.commands.profile import ProfileRequest
    from toolchain.core.context import RunContext
    from toolchain.profiling.measurements import Measurements


@click.group(cls=FileGroup, invoke_without_command=True)
@click.argument(
    "artifacts", metavar="ARTIFACT...", nargs=-1, required=True, type=values.FILE, shell_complete=complete.PROFILED
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="TARGET",
    shell_complete=complete.TARGET,
    help="Target to measure on (repeatable). Default: ort-cpu for .onnx, litert-cpu for .tflite.",
)
@click.option("--batch", type=values.BATCH, default=1, show_default=True, help="Images per inference.")
@click.option(
    "--seconds", type=values.DURATION, default="2s", show_default=True, help="Shortest time to measure each file."
)
@click.option("--runs", type=values.RUNS, default=1000, show_default=True, help="Fewest samples of each file.")
@click.option(
    "--sweep-threads",
    type=values.THREAD_NUMBERS,
    metavar="N,N...",
    help="Measure with each of these numbers of threads, in fresh processes.",
)
@click.option(
    "--sweep-batch",
    type=values.BATCH_NUMBERS,
    metavar="N,N...",
    help="Measure with each of these batch sizes, in fresh processes.",
)
@click.option(
    "--pin", type=values.CORES, default=(), metavar="N,N...", help="Run on these cores only, numbered from 0."
)
@click.option("--per-op", is_flag=True, help="Show the time of each operator, by the runtime's own profiler.")
@click.option(
    "--memory",
    is_flag=True,
    help="Also measure the memory of opening and a first inference, in three fresh processes each.",
)
@options.packed_option
@click.option("--require", is_flag=True, help="Exit 4 if any target is not available, not only if all are missing.")
@click.option("--strict", is_flag=True, help="Exit 3 if the machine was busy, hot or throttled.")
@click.option(
    "--save",
    type=values.OUTPUT_FOLDER,
    metavar="[DIR]",
    is_flag=False,
    flag_value=str(saved_profiles.FOLDER),
    help="Keep the run as a JSON file in this folder, for `list`, `compare` and `history`. Without DIR, behind the "
    "files: in ./profiles.",
)
@click.option("--commit", metavar="NAME", help="Commit that --save notes. Default: of git in the current folder.")
@click.option("--histogram", is_flag=True, help="Also draw the latencies of each file, in characters.")
@click.option("-o", "--output", type=values.OUTPUT_FILE, help="Write the raw nanoseconds to this .npz.")
@table_options(
    markdown="Write the table and its remarks to this file as Markdown.",
    csv="Write every figure to this file, in bytes and nanoseconds.",
)
@click.option(
    "--out",
    type=values.REPLACED_FOLDER,
    help="Write a page with pictures, the table and the samples into this folder.",
)
@options.run_options(seed=True, threads=1, force=True)
@options.json_option
def profile(
    *,
    artifacts: tuple[Path, ...],
    targets: tuple[str, ...],
    batch: int,
    seconds: float,
    runs: int,
    sweep_threads: tuple[int, ...] | None,
    sweep_batch: tuple[int, ...] | None,
    pin: tuple[int, ...],
    per_op: bool,
    memory: bool,
    packed: bool,
    require: bool,
    strict: bool,
    save: Path | None,
    commit: str | None,
    histogram: bool,
    output: Path | None,
    tables: TableFiles,
    out: Path | None,
    context: RunContext,
    as_json: bool,
) -> None:
    """Measure latency, or instructions on emulated processors, of model files on one or more targets.

    The commands below read what `--save` kept.

    \b
    Example:
      glyphpress profile a.onnx b.onnx --target ort-cpu --target arm64:cortex-a72
      glyphpress profile a.onnx --per-op
      glyphpress profile a.onnx --save
      glyphpress profile list
    """
    from targets.session import TimingPlan
    from toolchain.commands.profile import ProfileRequest
    from toolchain.profiling.latency import timeable

    files = OutputFiles(output, tables, out, per_op=per_op, save=save, commit=commit)
    files.refuse_unfit(artifacts, force=context.force)
    request = ProfileRequest(
        tuple(timeable(path) for path in artifacts),
        targets=targets,
        threads=context.threads,
        plan=TimingPlan(batch=batch, min_seconds=seconds, min_runs=runs, max_runs=max(runs, TimingPlan.max_runs)),
        pin=pin,
        memory=memory,
        packed=packed,
        require=require,
        strict=strict,
    )
    if per_op and not out:
        _profile_operators(request, context, as_json=as_json)
    elif sweep_threads or sweep_batch:
        _sweep(request, sweep_threads, sweep_batch, context, as_json=as_json)
    else:
        _profile_files(request, files, context, histogram=histogram, as_json=as_json)


@dataclass(frozen=True)
class OutputFiles:
    """The files that a profile is written to; None where one was not asked for.

    report: a folder. per_op: whether the page in it shows the times of operators. save: the folder of saved runs.
    commit: the name that a saved run notes.
    """

    output: Path | None
    tables: TableFiles
    report: Path | None = None
    per_op: bool = False
    save: Path | None = None
    commit: str | None = None

    def refuse_unfit(self, artifacts: Sequence[Path], *, force: bool) -> None:
        """Raise UsageProblem where two have one name, or one is a model file, exists or has another suffix.

        So does a commit without a run that is saved.
        """
        from toolchain.core.errors import UsageProblem
        from toolchain.core.files import refuse_existing, refuse_folder, refuse_source, refuse_unfit

        for path in filter(None, (self.output, self.tables.markdown, self.tables.csv)):
            for artifact in artifacts:
                refuse_source(path, artifact)
        self.tables.refuse_taken(force=force, output=self.output)
        if self.output:
            refuse_unfit(self.output, ".npz", force=force)
        if self.report:
            refuse_folder(self.report, force=force, kind="profile")
        if self.commit and not self.save:
            raise UsageProblem("--commit is noted in a saved run; give --save too")
        if self.save:
            refuse_existing(self.save / "run.json", force=True)

    def write(self, measured: Measurements, request: ProfileRequest, context: RunContext) -> Path | None:
        """Write the files; return that of the saved run."""
        from toolchain.report.timings import measurements_csv, measurements_table

        force = context.force
        if self.output:
            measured.save_samples(self.output, force=force)
        self.tables.write(
            markdown=lambda: measurements_table(measured).markdown() + "\n",
            csv=lambda: measurements_csv(measured),
            force=force,
        )
        if self.report:
            from toolchain.commands.profile import write_report

            write_report(self.report, measured, request, context, operators=self.per_op, command=console.command_line())
        if self.save:
            from toolchain.commands.profile import save_run

            return save_run(self.save, measured, commit=self.commit, command=console.command_line())
        return None


def _profile_files(
    request: ProfileRequest, files: OutputFiles, context: RunContext, *, histogram: bool, as_json: bool
) -> None:
    from toolchain.commands.profile import profile_files
    from toolchain.report.text_charts import histograms
    from toolchain.report.timings import measurements_table

    batch, runs = request.plan.batch, request.plan.min_runs
    if batch > 1 and batch * runs > MANY_IMAGES:
        console.say(
            f"each file runs {runs:,} times or more on {batch:,} images, {batch * runs:,} in all, which may take long; "
            "--runs takes fewer"
        )
    measured = profile_files(request, context)
    if as_json:
        console.emit("profile", measured.to_dict())
    else:
        console.show_columns(measurements_table(measured))
    if histogram and not as_json:
        console.write(f"\n{histograms(measured)}")
    # Last, so that a file that cannot be written costs no result.
    saved = files.write(measured, request, context)
    if saved:
        (console.say if as_json else console.tell)(f"saved {saved}")
    if files.report and not as_json:
        console.tell(f"page: {files.report / 'report.html'}{', with the times of operators' if files.per_op else ''}")


MANY_IMAGES = 1_000_000
"""Images that a small model reads in a second, and a large one in minutes."""


def _profile_operators(request: ProfileRequest, context: RunContext, *, as_json: bool) -> None:
    from toolchain.commands.profile import operator_times
    from toolchain.report.timings import operators_text

    kept = ("save", "commit", "histogram", "output", "markdown", "csv")
    timing = ("memory", "packed", "strict", *kept, "seconds", "runs", "seed")
    _refuse_unused("--per-op", "sweep_threads", "sweep_batch", *timing)
    breakdowns = operator_times(request, context)
    if as_json:
        console.emit("profile-operators", {"breakdowns": [breakdown.to_dict() for breakdown in breakdowns]})
    else:
        console.show(operators_text(breakdowns, colour=not console.plain()))


def _sweep(
    request: ProfileRequest,
    threads: tuple[int, ...] | None,
    batches: tuple[int, ...] | None,
    context: RunContext,
    *,
    as_json: bool,
) -> None:
    from targets.session import taints_of
    from toolchain.profiling.sweep import sweep
    from toolchain.report.timings import sweep_text

    swept = ["threads"] * bool(threads) + ["batch"] * bool(batches)
    kept = ("save", "commit", "histogram", "output", "markdown", "csv", "out")
    _refuse_unused("a sweep", "memory", "packed", "require", "strict", *kept, *swept)
    points = sweep(
        request.artifacts,
        request.targets,
        threads or (request.threads,),
        batches or (request.plan.batch,),
        plan=request.plan,
        seed=context.seed,
        pin=request.pin,
        progress=context.progress,
    )
    if as_json:
        tainted = taints_of(point.timings for point in points if point.timings)
        console.emit("profile-sweep", {"points": [point.to_dict() for point in points], "taints": list(tainted)})
    else:
        console.show(sweep_text(points, colour=not console.plain()))


def _refuse_unused(mode: str, *names: str) -> None:
    """Raise UsageProblem where an option was given that this way of profiling has no use for."""
    from toolchain.core.errors import UsageProblem

    for name in filter(options.was_given, names):
        fix = _SAVED_ALONE.get(mode, "leave one of them out") if name == "save" else "leave one of them out"
        raise UsageProblem(f"--{name.replace('_', '-')} has no meaning with {mode}; {fix}")


_SAVED_ALONE = {
    "a sweep": "save a run for each number, such as `--threads 2 --batch 8 --save`, and `profile history` shows each",
    "--per-op": "save the latency of the whole file in a run without --per-op",
}
"""What to do instead of saving a run that has no latency of whole files with one number of threads and one batch."""


for command in saved_profiles.COMMANDS:
    profile.add_command(command)


@click.command("probe-int8")
@click.argument("shapes", metavar="[SHAPE...]", nargs=-1, shell_complete=complete.ONNX_FILE)
@options.target_option
@options.run_options(seed=True)
@options.json_option
def probe_int8(*, shapes: tuple[str, ...], target: str | None, context: RunContext, as_json: bool) -> None:
    """Estimate what int8 costs compared with float on a target, with small models of your layers' shapes.

    SHAPE is INxOUT of a matrix (576x47), or INxOUTxKERNEL@HEIGHTxWIDTH of a convolution (16x32x3@14x14); without one,
    three shapes that are common in handwriting models. A float .onnx instead gives the shapes of its layers. Each shape
    is weighted by its cost in float.

    \b
    Example:
      glyphpress probe-int8 --target arm64:cortex-a72 16x32x3@14x14
      glyphpress probe-int8 --target arm64:cortex-a72 cnn.float.onnx
    """
    from toolchain.commands.probe_int8 import probe_int8 as run
    from toolchain.evaluation.timings import not_quiet

    probe = run(target or "ort-cpu", shapes, context)
    if as_json:
        console.emit("probe-int8", probe.to_dict())
        return
    for row in probe.ratios:
        interval = f" [{row.low:.2f}, {row.high:.2f}]" if row.low is not None and row.high is not None else ""
        console.write(f"{row.format:8} {row.shape:18} {row.ratio:.2f}{interval}")
    for line in [*probe.advice(), *not_quiet(probe.taints)]:
        console.tell(line)

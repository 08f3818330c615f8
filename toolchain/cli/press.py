"""`glyphpress press` and `demo`: the whole way, from a checkpoint to judged files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from toolchain.cli import complete, console, options, values
from toolchain.cli.checkpoint_options import checkpoint_options
from toolchain.formats.catalog import pressed

if TYPE_CHECKING:
    from targets.artifact import Format
    from toolchain.checkpoint.load import CheckpointRequest
    from toolchain.core.context import RunContext
    from toolchain.report.report import Report
    from toolchain.report.rows import Prefer


@click.command()
@click.argument("checkpoint", shell_complete=complete.CHECKPOINT)
@checkpoint_options
@options.data_option
@click.option(
    "--recipe",
    "recipes",
    multiple=True,
    default=("static-int8",),
    show_default=True,
    metavar="RECIPE",
    shell_complete=complete.RECIPE,
    help="A shipped recipe (`glyphpress recipe list`) or a TOML file (repeatable).",
)
@click.option(
    "--teacher",
    metavar="CHECKPOINT",
    shell_complete=complete.CHECKPOINT,
    help="Recipes that train learn from this checkpoint's answers instead of CHECKPOINT's, such as a larger model's.",
)
@click.option(
    "--format",
    "formats",
    multiple=True,
    type=values.Choice(pressed()),
    default=pressed(),
    show_default=True,
    help="Output format (repeatable).",
)
@click.option(
    "--target",
    metavar="TARGET",
    shell_complete=complete.TARGET,
    help="Target used to evaluate, measure and pick the winner. Default: this machine.",
)
@options.limit_options("drop", "size", "p95")
@click.option(
    "--prefer",
    type=values.Choice(["balanced", "size", "speed"]),
    default="balanced",
    show_default=True,
    help="Which file wins: the smallest that is not over 5 % slower than float, the smallest, or the fastest.",
)
@click.option(
    "--seconds", type=values.DURATION, default="2s", show_default=True, help="Shortest time to measure each file."
)
@click.option(
    "--out", type=values.REPLACED_FOLDER, required=True, help="Folder for the files, their sidecars and the report."
)
@options.run_options(seed=True, threads=0, resume=True, force=True)
@options.json_option
def press(
    *,
    checkpoint: str,
    request: CheckpointRequest,
    data: str,
    recipes: tuple[str, ...],
    teacher: str | None,
    formats: tuple[Format, ...],
    target: str | None,
    limits: options.Limits,
    prefer: Prefer,
    seconds: float,
    out: Path,
    context: RunContext,
    as_json: bool,
) -> None:
    """Prune, convert and quantize a model, then evaluate, time and judge every file that came out.

    CHECKPOINT is a file, or a model whose trained weights come with glyphpress: cnn-small or cnn-deep.

    Exit 0 if every file passed, 1 if one failed, 5 if one could not be decided, 3 if one could not be made; the other
    files are kept in every case.

    \b
    Example:
      glyphpress press cnn-small --data emnist:balanced --out out/
    """
    from targets.session import TimingPlan
    from toolchain.commands.press import press as run
    from toolchain.commands.press_request import FORMATS, PressRequest
    from toolchain.core.json_codec import to_json
    from toolchain.recipe import find
    from toolchain.report.advice import pressed_next
    from toolchain.report.press_report import show_report

    chosen = {name: find(name).taught_by(teacher) for name in dict.fromkeys(recipes)}
    asked = PressRequest(
        checkpoint=checkpoint,
        data=data,
        recipes=tuple(chosen.values()),
        checkpoint_options=request,
        formats=tuple(format_ for format_ in FORMATS if format_ in formats),
        formats_named=options.was_given("formats"),
        recipes_named=options.was_given("recipes"),
        policy=limits.chosen(),
        plan=TimingPlan(min_seconds=seconds, min_runs=1000, inner=1),
        target=target,
        prefer=prefer,
        command=console.command_line(),
    )
    report = run(asked, out, context)
    steps = pressed_next(report, out, options.data_words(data, context.data_root), chosen)
    if as_json:
        console.emit("press", {"out": str(out), "report": to_json(report), "next_steps": steps})
    else:
        show_report(report, console.out())
        _tell_pages(out, steps)
    _raise_unless_passed(report)


def _raise_unless_passed(report: Report) -> None:
    from toolchain.gate.limit import raise_for

    report.raise_unless_complete()
    if report.verdicts:
        raise_for(report.verdicts)


def _tell_pages(out: Path, steps: Sequence[str] = ()) -> None:
    from targets.host.text import argument

    console.tell(f"report: {out / 'report.md'}")
    console.tell(f"page: {out / 'report.html'} (glyphpress report {argument(out)} --open)")
    console.advise(steps)


@click.command()
@click.option(
    "--out", type=values.REPLACED_FOLDER, default="demo-out", show_default=True, help="Folder for the results."
)
@options.run_options(seed=True, threads=0, force=True)
@options.json_option
def demo(*, out: Path, context: RunContext, as_json: bool) -> None:
    """Train a small model on real handwritten digits, press it three ways, and judge every file.

    \b
    Example:
      glyphpress demo --out demo-out
    """
    from targets.host.text import argument
    from toolchain.commands.press import DEMO_MARGIN
    from toolchain.commands.press import demo as run
    from toolchain.core.json_codec import to_json
    from toolchain.core.quantities import points_text
    from toolchain.export import EXPORTERS
    from toolchain.formats import catalog
    from toolchain.report.press_report import show_report

    report = run(out, context)
    if as_json:
        console.emit("demo", {"out": str(out), "report": to_json(report)})
    else:
        show_report(report, console.out())
        for name, exporter in EXPORTERS.items():
            if name not in {row.format for row in report.rows}:
                console.tell(f"{catalog.get(name).title} was left out: {exporter.missing}")
        console.tell(
            f"margin: {points_text(DEMO_MARGIN, 0)} pp, since {report.dataset.images} test images cannot decide 0.3 pp "
            "(that takes EMNIST's thousands: press cnn-small --data emnist:balanced)"
        )
        _tell_pages(out)
        console.tell(f"kiosk: glyphpress kiosk {argument(out)} --open (write, and see what each file reads)")
    _raise_unless_passed(report)

"""`glyphpress press`: the whole way, from a checkpoint to judged files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click
from click.core import ParameterSource

from toolchain.cli import complete, console, options
from toolchain.cli.checkpoint_options import checkpoint_options
from toolchain.cli.options import Command

if TYPE_CHECKING:
    from toolchain.commands.press_request import PressRequest
    from toolchain.core.context import RunContext
    from toolchain.report.winner import Prefer


_OPTIONS = (
    click.option(
        "--recipe",
        "recipes",
        multiple=True,
        default=("static-int8",),
        show_default=True,
        metavar="RECIPE",
        shell_complete=complete.RECIPE,
        help="A shipped recipe (`glyphpress recipe list`) or a TOML file (repeatable).",
    ),
    click.option(
        "--format",
        "formats",
        multiple=True,
        type=options.Choice(["onnx", "tflite"]),
        default=("onnx", "tflite"),
        show_default=True,
        help="Output format (repeatable).",
    ),
    click.option(
        "--target",
        metavar="TARGET",
        shell_complete=complete.TARGET,
        help="Target used to evaluate, measure and pick the winner. Default: this machine.",
    ),
    options.policy_option,
    click.option("--max-drop", "drop", type=options.POINTS, help="Largest drop in accuracy, instead of the policy's."),
    click.option("--max-size", "size", type=options.SIZE, help="Largest file size, instead of the policy's."),
    click.option(
        "--max-p95", "p95", type=options.DURATION, help="Largest P95 latency at batch 1, instead of the policy's."
    ),
    click.option(
        "--prefer",
        type=options.Choice(["balanced", "size", "speed"]),
        default="balanced",
        show_default=True,
        help="Which file wins: the smallest that is not over 5 % slower than float, the smallest, or the fastest.",
    ),
    click.option(
        "--seconds", type=options.DURATION, default="2s", show_default=True, help="Shortest time to measure each file."
    ),
)


def press_options(command: Command) -> Command:
    """Add the options; `press_request` takes them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def press_request(
    *,
    checkpoint: str,
    request: Any,
    data: str,
    recipes: tuple[str, ...],
    formats: tuple[str, ...],
    target: str | None,
    policy_words: str | None,
    prefer: Prefer,
    seconds: float,
    context: RunContext,
    **limits: float | None,
) -> PressRequest:
    """Return what the options ask for; raises UsageProblem and PolicyError."""
    from targets.session import TimingPlan
    from toolchain.commands.press_request import FORMATS, PressRequest
    from toolchain.gate.policy import choose_policy
    from toolchain.recipe import find

    ctx = click.get_current_context()
    assert ctx, "a command is running"
    return PressRequest(
        checkpoint=checkpoint,
        data=data,
        recipes=tuple(find(name) for name in dict.fromkeys(recipes)),
        words=request,
        data_root=context.data_root,
        formats=tuple(kind for kind in FORMATS if kind in formats),
        formats_named=ctx.get_parameter_source("formats") is not ParameterSource.DEFAULT,
        policy=choose_policy(policy_words, **limits),
        plan=TimingPlan(min_seconds=seconds, min_runs=1000, inner=1),
        target=target,
        prefer=prefer,
        seed=context.seed,
        threads=context.threads,
        command=("glyphpress", *sys.argv[1:]),
    )


@click.command()
@click.argument("checkpoint", shell_complete=complete.CHECKPOINT)
@checkpoint_options
@options.data_option
@press_options
@click.option("--out", type=options.FOLDER, required=True, help="Folder for the files, their sidecars and the report.")
@options.run_options(seed=True, threads=0, force=True)
@options.json_option
def press(*, out: Path, context: RunContext, as_json: bool, **words: Any) -> None:
    """Prune, convert and quantize a model, then evaluate, time and judge every file that came out.

    Exit 0 if every file passed, 1 if one failed, 5 if one could not be decided, 3 if one could not be made; the other
    files are kept in every case.

    \b
    Example:
      glyphpress press cnn-small --data emnist:balanced --out out/
    """
    from toolchain.commands.press import press as run
    from toolchain.gate.gate import raise_for
    from toolchain.report.advice import pressed_next
    from toolchain.report.table import show

    request = press_request(**words, context=context)
    report = run(request, out, force=context.force, progress=context.progress)
    steps = pressed_next(report, out, options.data_words(request.data, request.data_root))
    if as_json:
        console.emit("press", {"out": str(out), "report": report.to_dict(), "next_steps": steps})
    else:
        show(report, console.out())
        console.tell(f"report: {out / 'report.md'}")
        console.advise(steps)
    report.raise_unless_complete()
    if report.verdicts:
        raise_for(report.verdicts)

"""`glyphpress gate`: whether a candidate may ship; the exit code says it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click
from click.core import ParameterSource

from toolchain.cli import complete, console, options
from toolchain.cli.gate_plan import plan
from toolchain.cli.gate_setup import baseline, init, schema
from toolchain.cli.groups import NearestGroup
from toolchain.cli.options import Command

if TYPE_CHECKING:
    from toolchain.core.context import RunContext
    from toolchain.report.judgement import Judgement
    from toolchain.report.outputs import Outputs


_LIMITS = ("drop", "size", "p50", "p95")
_FILES = ("junit", "sarif", "markdown", "verdict")
_OPTIONS = (
    click.option("--baseline", type=options.FILE, help="Float file, its saved evaluation, or a stored baseline."),
    click.option(
        "--candidate",
        "candidates",
        multiple=True,
        type=options.FILE,
        help="File to judge, or its saved evaluation (repeatable: the best one ships).",
    ),
    options.optional_data_option,
    options.classes_option,
    click.option(
        "--train-data",
        metavar="DATA",
        shell_complete=complete.DATA,
        help="What the candidate was trained and calibrated on, for [leaks]; by default the train split of --data.",
    ),
    click.option(
        "--from",
        "stored",
        multiple=True,
        type=options.FILE,
        help="Judge evidence that --evidence stored, without running anything (once per candidate).",
    ),
    options.policy_option,
    click.option("--max-drop", "drop", type=options.POINTS, help="Largest drop in accuracy, instead of the policy's."),
    click.option("--max-size", "size", type=options.SIZE, help="Largest file size, instead of the policy's."),
    click.option(
        "--max-p50", "p50", type=options.DURATION, help="Largest median latency at batch 1, instead of the policy's."
    ),
    click.option(
        "--max-p95", "p95", type=options.DURATION, help="Largest P95 latency at batch 1, instead of the policy's."
    ),
    options.target_option,
    click.option("--junit", type=options.FILE, help="Write JUnit XML with one test case per limit."),
    click.option("--sarif", type=options.FILE, help="Write SARIF with one result per limit that did not pass."),
    click.option(
        "--markdown", type=options.FILE, help="Write a summary for a pull request, with its pictures beside it."
    ),
    click.option("--verdict", type=options.FILE, help="Write the whole verdict as JSON (`gate schema verdict`)."),
    click.option(
        "--evidence", multiple=True, type=options.FILE, help="Store the evidence for --from (once per candidate)."
    ),
    options.run_options(threads=1, force=True),
    options.json_option,
)


def gate_options(command: Command) -> Command:
    """Add the options."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def asked_outputs(words: dict[str, Any], *, force: bool) -> tuple[Outputs, dict[str, Any], dict[str, float | None]]:
    """Return the files that are asked for, the words of `GateRequest`, and the limits."""
    from toolchain.report.outputs import Outputs

    outputs = Outputs(**{name: words.pop(name) for name in _FILES}, force=force)
    limits = {name: words.pop(name) for name in _LIMITS}
    return outputs, words, limits


def show(judgement: Judgement, next_steps: list[str], *, as_json: bool) -> None:
    """Print the judgement on stdout, and what a user can do next.

    As JSON it is what `--verdict` writes, and beside it `next_steps`, and `verdicts` and `comparison` of the candidate
    that won, or of the first where none did.
    """
    from toolchain.report.reading import show_comparison, show_verdicts, show_winner

    if as_json:
        whole = judgement.to_dict()
        named = [one for one in whole["candidates"] if one["file"]["name"] == judgement.winner]
        first = (named or whole["candidates"])[0]
        beside = {"verdicts": first["verdicts"], "comparison": first["comparison"], "next_steps": next_steps}
        console.emit("gate", whole | beside)
        return
    out = console.out()
    for judged in judgement.candidates:
        show_comparison(judged.comparison, out)
        show_verdicts(judged.verdicts, out)
    show_winner(judgement, out)
    console.advise(next_steps)


@click.group(cls=NearestGroup, invoke_without_command=True)
@gate_options
@click.pass_context
def gate(
    ctx: click.Context,
    /,
    *,
    policy_words: str | None,
    stored: tuple[Path, ...],
    context: RunContext,
    as_json: bool,
    **words: Any,
) -> None:
    """Judge a candidate: exit 0 passed, 1 failed, 5 inconclusive.

    With several candidates the best one ships, and each is judged at a confidence that is corrected for the choice.
    `--from` judges stored evidence again without running anything.

    \b
    Example:
      glyphpress gate --baseline float.npz --candidate int8.npz --max-size 250KB
      glyphpress gate --from evidence.json --policy gate.toml
    """
    if ctx.invoked_subcommand is not None:
        _refuse_stray(ctx)
        return
    _refuse_half(ctx, stored)
    from toolchain.commands.gate import GateRequest, judge_stored
    from toolchain.commands.gate import gate as run
    from toolchain.gate.policy import choose_policy
    from toolchain.report.advice import gate_next

    outputs, request, limits = asked_outputs(words, force=context.force)
    policy = choose_policy(policy_words, **limits)
    if stored:
        judgement = judge_stored(policy, stored, outputs)
    else:
        asked = GateRequest(
            policy=policy, outputs=outputs, data_root=context.data_root, threads=context.threads, **request
        )
        judgement = run(asked, progress=context.progress)
    images = options.data_words(request["data"], context.data_root)
    steps = gate_next(judgement, baseline=request["baseline"], candidates=request["candidates"], data=images)
    show(judgement, steps, as_json=as_json)
    judgement.raise_unless_passed()


def _given(ctx: click.Context) -> list[str]:
    """Return the options that stand on the command line."""
    said = (param for param in ctx.command.params if param.name)
    return [
        param.opts[0] for param in said if ctx.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE
    ]


def _refuse_stray(ctx: click.Context) -> None:
    if stray := [option for option in _given(ctx) if option not in ("-q", "-v")]:
        ctx.fail(f"{stray[0]} belongs behind `gate {ctx.invoked_subcommand}`, or to a gate without it")


def _refuse_half(ctx: click.Context, stored: tuple[Path, ...]) -> None:
    """Refuse a gate without anything to judge, and one of stored evidence that something should be run for."""
    given = _given(ctx)
    images = ("--data", "--classes", "--train-data", "--data-root")
    running = ("--baseline", "--candidate", *images, "--target", "--threads")
    if stored and (extra := [option for option in (*running, "--evidence") if option in given]):
        ctx.fail(f"--from runs nothing, so it takes no {extra[0]}; leave one of them out")
    if not stored and (missing := [option for option in running[:2] if option not in given]):
        ctx.fail(f"missing option '{missing[0]}'; give --baseline and --candidate, or --from")


for command in (init, plan, schema, baseline):
    gate.add_command(command)

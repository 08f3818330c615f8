"""`glyphpress gate`: whether a candidate may ship; the exit code says it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click
from click.core import ParameterSource

from toolchain.cli import console, options
from toolchain.cli.gate_baseline import baseline
from toolchain.cli.gate_init import init
from toolchain.cli.gate_options import asked_outputs, gate_options
from toolchain.cli.gate_plan import plan
from toolchain.cli.gate_schema import schema
from toolchain.cli.gate_show import show
from toolchain.cli.groups import NearestGroup


@click.group(cls=NearestGroup, invoke_without_command=True)
@gate_options
@click.pass_context
def gate(
    ctx: click.Context, /, *, policy_words: str | None, stored: tuple[Path, ...], as_json: bool, **words: Any
) -> None:
    """Judge a candidate: exit 0 passed, 1 failed, 5 inconclusive.

    Of several candidates the best ships, each judged by confidences that are corrected for the choice. `--from` judges
    stored evidence again without running anything.

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
    from toolchain.report.advice import gate_next
    from toolchain.verdict.policy import choose_policy

    outputs, request, limits = asked_outputs(words)
    policy = choose_policy(policy_words, **limits)
    if stored:
        judgement = judge_stored(policy, stored, outputs)
    else:
        with console.progress() as progress:
            asked = GateRequest(policy=policy, outputs=outputs, **request)
            judgement = run(asked, progress=progress)
    images = options.data_words(request["data"], request["data_root"])
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

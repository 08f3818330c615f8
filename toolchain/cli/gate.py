"""`glyphpress gate`: whether a candidate may ship, and the files that a gate needs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click
from click.core import ParameterSource

from toolchain.cli import complete, console, options, values
from toolchain.cli.gate_plan import plan
from toolchain.cli.groups import NearestGroup

if TYPE_CHECKING:
    from toolchain.core.context import RunContext
    from toolchain.report.judgement import Judgement

NAME = click.Path(dir_okay=False)
"""A file of another machine: completed like one, and kept as it was typed."""


@click.group(cls=NearestGroup, invoke_without_command=True)
@click.option(
    "--baseline",
    type=values.FILE,
    shell_complete=complete.EVALUATED,
    help="Float file, its saved evaluation, or a stored baseline.",
)
@click.option(
    "--candidate",
    "candidates",
    multiple=True,
    type=values.FILE,
    shell_complete=complete.EVALUATED,
    help="File to judge, or its saved evaluation (repeatable: the best one ships).",
)
@options.optional_data_option
@options.classes_option
@click.option(
    "--train-data",
    metavar="DATA",
    shell_complete=complete.DATA,
    help="What the candidate was trained and calibrated on, for [leaks]; by default the train split of --data.",
)
@click.option(
    "--from",
    "stored",
    multiple=True,
    type=values.FILE,
    shell_complete=complete.JSON_FILE,
    help="Judge evidence that --evidence stored, without running anything (once per candidate).",
)
@options.limit_options("drop", "size", "p50", "p95")
@options.target_option
@click.option("--junit", type=values.OUTPUT_FILE, help="Write JUnit XML with one test case per limit.")
@click.option("--sarif", type=values.OUTPUT_FILE, help="Write SARIF with one result per limit that did not pass.")
@click.option(
    "--markdown", type=values.OUTPUT_FILE, help="Write a summary for a pull request, with its pictures beside it."
)
@click.option("--html", type=values.OUTPUT_FILE, help="Write the whole judgement as one page, with its pictures.")
@click.option(
    "--verdict", type=values.OUTPUT_FILE, help="Write the whole verdict as JSON (`glyphpress schema verdict`)."
)
@click.option(
    "--evidence", multiple=True, type=values.OUTPUT_FILE, help="Store the evidence for --from (once per candidate)."
)
@options.run_options(threads=1, force=True)
@options.json_option
@click.pass_context
def gate(
    ctx: click.Context,
    /,
    *,
    baseline: Path | None,
    candidates: tuple[Path, ...],
    data: str | None,
    train_data: str | None,
    stored: tuple[Path, ...],
    limits: options.Limits,
    target: str | None,
    junit: Path | None,
    sarif: Path | None,
    markdown: Path | None,
    html: Path | None,
    verdict: Path | None,
    evidence: tuple[Path, ...],
    context: RunContext,
    as_json: bool,
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
        _refuse_options_of_the_gate(ctx)
        return
    _refuse_incomplete(ctx, stored)
    from toolchain.commands.gate import GateRequest, judge_stored
    from toolchain.commands.gate import gate as run
    from toolchain.report.outputs import Outputs

    command = console.command_line()
    images = options.data_words(data, context.data_root)
    show = partial(_show, baseline=baseline, candidates=candidates, data=images, as_json=as_json)
    outputs = Outputs(junit, sarif, markdown, verdict, force=context.force, html=html, command=command)
    if stored:
        judgement = judge_stored(limits.chosen(), stored, outputs, on_judgement=show)
    else:
        assert baseline, "--baseline was given"
        request = GateRequest(
            limits.chosen(),
            baseline,
            candidates,
            data=data,
            train_data=train_data,
            target=target,
            evidence=evidence,
            outputs=outputs,
        )
        _refuse_idle_threads(baseline, *candidates)
        judgement = run(request, context, on_judgement=show)
    judgement.raise_unless_passed()


def _show(
    judgement: Judgement, *, baseline: Path | None, candidates: tuple[Path, ...], data: Sequence[str], as_json: bool
) -> None:
    """Print the judgement on stdout, and what a user can do next.

    The JSON is that of `--verdict` with `next_steps` added, and `verdicts` and `comparison` of the candidate that won
    (of the first one if none did).
    """
    from toolchain.core.json_codec import to_json
    from toolchain.report.advice import gate_next
    from toolchain.report.gate_terminal import show_comparison, show_plugins, show_verdicts, show_winner

    next_steps = gate_next(judgement, baseline=baseline, candidates=candidates, data=data)
    if as_json:
        whole = to_json(judgement)
        winners = [row for row in whole["candidates"] if row["file"]["name"] == judgement.winner]
        shown = (winners or whole["candidates"])[0]
        added = {"verdicts": shown["verdicts"], "comparison": shown["comparison"], "next_steps": next_steps}
        console.emit("gate", whole | added)
        return
    out = console.out()
    for judged in judgement.candidates:
        show_comparison(judged.comparison, out)
        show_verdicts(judged.verdicts, out)
    show_winner(judgement, out)
    show_plugins(judgement, out)
    console.advise(next_steps)


def _given_options(ctx: click.Context) -> list[str]:
    """Return the options that were given on the command line."""
    return [
        param.opts[0]
        for param in ctx.command.params
        if param.name and ctx.get_parameter_source(param.name) is ParameterSource.COMMANDLINE
    ]


def _refuse_options_of_the_gate(ctx: click.Context) -> None:
    """Raise UsageError for an option in front of a subcommand, which would do nothing there."""
    if misplaced := [option for option in _given_options(ctx) if option not in ("-q", "-v")]:
        ctx.fail(f"{misplaced[0]} belongs behind `gate {ctx.invoked_subcommand}`, or to a gate without it")


def _refuse_incomplete(ctx: click.Context, stored: tuple[Path, ...]) -> None:
    """Raise UsageError for a gate with nothing to judge, or for stored evidence with options that run something."""
    given = _given_options(ctx)
    images = ("--data", "--classes", "--train-data", "--data-root")
    running = ("--baseline", "--candidate", *images, "--target", "--threads")
    if stored and (extra := [option for option in (*running, "--evidence") if option in given]):
        ctx.fail(f"--from runs nothing, so it takes no {extra[0]}; leave one of them out")
    if not stored and (missing := [option for option in running[:2] if option not in given]):
        ctx.fail(f"missing option '{missing[0]}'; give --baseline and --candidate, or --from")


def _refuse_idle_threads(*files: Path) -> None:
    """Raise UsageProblem where `--threads` was given and no file is run."""
    from toolchain.core.errors import UsageProblem
    from toolchain.gate.candidate import is_saved

    if options.was_given("threads") and all(map(is_saved, files)):
        raise UsageProblem("--threads would do nothing: saved evaluations are not run; leave it out")


@gate.command()
@click.option(
    "--policy",
    "policy_words",
    metavar="POLICY",
    shell_complete=complete.POLICY,
    help="Policy whose limits are set: strict, default, smoke, or a TOML file; other limits are commented out.",
)
@click.option(
    "--ci",
    "service",
    metavar="SERVICE",
    shell_complete=complete.SERVICE,
    help="Write the file that runs the gate on this service instead: github, gitlab or pre-commit.",
)
@click.option(
    "--install",
    metavar="SOURCE",
    type=NAME,
    help="With --ci: what CI installs: git+URL@COMMIT, the path or address of a wheel, or glyphpress==VERSION. "
    "Default: what this glyphpress was installed from, or the pushed commit of its checkout.",
)
@click.option(
    "--model",
    type=NAME,
    shell_complete=complete.ARTIFACT,
    help="With --ci: float file that is the baseline where there is no baseline.npz.",
)
@click.option("--candidate", type=NAME, shell_complete=complete.ARTIFACT, help="With --ci: file to judge.")
@click.option("--data", metavar="DATA", shell_complete=complete.DATA, help="With --ci: images, as `gate --data` takes.")
@click.option(
    "-o",
    "--output",
    type=values.OUTPUT_FILE,
    help="File to write. Default: gate.toml, or the file that the service looks for.",
)
@options.run_options(force=True)
@click.pass_context
def init(
    ctx: click.Context,
    /,
    *,
    policy_words: str | None,
    service: str | None,
    install: str | None,
    output: Path | None,
    context: RunContext,
    **job: str | None,
) -> None:
    """Write a gate.toml with every limit explained, or a ready CI file.

    \b
    Example:
      glyphpress gate init --policy strict
      glyphpress gate init --ci github --install git+https://HOST/glyphpress@COMMIT
    """
    values = {name: value for name, value in job.items() if value is not None}
    if service and policy_words:
        ctx.fail("--ci writes a CI file, which reads gate.toml; write that with --policy in a run of its own")
    if not service and (install or values):
        ctx.fail(f"--{next(iter(values), 'install')} does nothing without --ci; add --ci github, gitlab or pre-commit")
    from toolchain.ci import Job, runs_from_path, write_ci, write_policy
    from toolchain.ci.source import read_source

    if service:
        what = Job(read_source(install) if install else None, **values)
        path = write_ci(service, output, what, force=context.force)
    else:
        path = write_policy(policy_words, output, force=context.force)
    console.tell(f"wrote {path}")
    if service and runs_from_path(service, what):
        console.say(
            "its hook needs glyphpress on the PATH of everyone who commits; --install git+URL@COMMIT installs it"
        )
    if service and not Path("gate.toml").exists():
        console.say("it reads gate.toml, which is not here yet; `glyphpress gate init` writes it")


gate.add_command(plan)


@gate.command()
@click.argument("artifact", type=values.FILE, shell_complete=complete.ARTIFACT)
@options.data_option
@options.classes_option
@options.limit_options()
@options.target_option
@click.option("-o", "--output", type=values.OUTPUT_FILE, required=True, help="Where to store it (.npz).")
@options.run_options(force=True)
@options.json_option
def baseline(
    *,
    artifact: Path,
    data: str,
    limits: options.Limits,
    target: str | None,
    output: Path,
    context: RunContext,
    as_json: bool,
) -> None:
    """Store a float model's answers, signed by a digest, so that CI need not hold the model.

    Includes the answers under scanner damage if the policy has [stress]. Prints the lines that pin a policy to this
    baseline.

    \b
    Example:
      glyphpress gate baseline float.onnx --data emnist:balanced -o baseline.npz
    """
    from toolchain.commands.gate import store_baseline
    from toolchain.gate.collect import needs_file

    policy = limits.chosen()
    stored = store_baseline(artifact, policy, data, output, target=target, context=context)
    for line in needs_file(policy):
        console.say(line)
    if as_json:
        facts = {"digest": stored.digest, "path": str(output), "images": len(stored.evaluation)}
        console.emit("gate-baseline", facts | {"damage": [damaged.kind for damaged in stored.stress]})
    else:
        console.say(f"wrote {output}; these lines in a policy pin it:")
        console.write(f'[baseline]\ndigest = "{stored.digest}"')

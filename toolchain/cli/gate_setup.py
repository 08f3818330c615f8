"""`glyphpress gate init`, `schema` and `baseline`: the files that a gate is set up with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from toolchain.cli import complete, console, options
from toolchain.cli.options import Choice

if TYPE_CHECKING:
    from toolchain.core.context import RunContext


@click.command()
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
    "-o",
    "--output",
    type=options.FILE,
    help="File to write. Default: gate.toml, or the file that the service looks for.",
)
@options.run_options(force=True)
@click.pass_context
def init(
    ctx: click.Context, *, policy_words: str | None, service: str | None, output: Path | None, context: RunContext
) -> None:
    """Write a gate.toml with every limit explained, or a ready CI file.

    \b
    Example:
      glyphpress gate init --policy strict
      glyphpress gate init --ci github -o .github/workflows/gate.yml
    """
    if service and policy_words:
        ctx.fail("--ci writes a CI file, which reads gate.toml; write that with --policy in a run of its own")
    from toolchain.ci import write_ci, write_policy

    place = (
        write_ci(service, output, force=context.force)
        if service
        else write_policy(policy_words, output, force=context.force)
    )
    console.tell(f"wrote {place}")


@click.command()
@click.argument("what", type=Choice(["policy", "verdict"]), default="policy")
def schema(*, what: str) -> None:
    """Print the JSON schema of a policy file, or of what --verdict writes.

    \b
    Example:
      glyphpress gate schema > gate.schema.json
      glyphpress gate schema verdict > verdict.schema.json
    """
    from toolchain.gate.policy import schema as policy_schema
    from toolchain.report.verdict_schema import verdict_schema

    click.echo(json.dumps({"policy": policy_schema, "verdict": verdict_schema}[what](), indent=2, ensure_ascii=False))


@click.command()
@click.argument("artifact", type=options.FILE)
@options.data_option
@options.classes_option
@options.policy_option
@options.target_option
@click.option("-o", "--output", type=options.FILE, required=True, help="Where to store it (.npz).")
@options.run_options(force=True)
@options.json_option
def baseline(
    *,
    artifact: Path,
    data: str,
    policy_words: str | None,
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
    from toolchain.gate.policy import choose_policy

    policy = choose_policy(policy_words)
    made = store_baseline(
        artifact,
        policy,
        data,
        output,
        data_root=context.data_root,
        target=target,
        force=context.force,
        progress=context.progress,
    )
    for line in needs_file(policy):
        console.say(line)
    if as_json:
        facts = {"digest": made.digest, "path": str(output), "images": len(made.evaluation)}
        console.emit("gate-baseline", facts | {"damage": [one.kind for one in made.stress]})
    else:
        console.say(f"wrote {output}; these lines in a policy pin it:")
        console.write(f'[baseline]\ndigest = "{made.digest}"')

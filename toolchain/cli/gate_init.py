"""`glyphpress gate init`: a policy file to start from, or the file that runs the gate in CI."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from toolchain.cli import complete, console, options


@click.command()
@click.option(
    "--policy",
    "policy_words",
    metavar="POLICY",
    shell_complete=complete.POLICY,
    help="Whose limits are set: strict, default, smoke, or a TOML file; the others are commented out.",
)
@click.option(
    "--ci",
    "service",
    metavar="SERVICE",
    shell_complete=complete.SERVICE,
    help="Write the file that runs the gate there instead: github, gitlab or pre-commit.",
)
@click.option(
    "-o", "--output", type=options.FILE, help="Where; without it gate.toml, or the place where the service looks."
)
@options.force_option
@click.pass_context
def init(
    ctx: click.Context, *, policy_words: str | None, service: str | None, output: Path | None, force: bool
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

    place = write_ci(service, output, force=force) if service else write_policy(policy_words, output, force=force)
    console.tell(f"wrote {place}")

"""`glyphpress gate schema`: the published forms of what a gate reads and writes."""

from __future__ import annotations

import json

import rich_click as click

from toolchain.cli.options import Choice


@click.command()
@click.argument("what", type=Choice(["policy", "verdict"]), default="policy")
def schema(*, what: str) -> None:
    """Print the JSON schema of a policy file, or of what --verdict writes.

    \b
    Example:
      glyphpress gate schema > gate.schema.json
      glyphpress gate schema verdict > verdict.schema.json
    """
    from toolchain.report.verdict_schema import verdict_schema
    from toolchain.verdict.policy import schema as policy_schema

    click.echo(json.dumps({"policy": policy_schema, "verdict": verdict_schema}[what](), indent=2, ensure_ascii=False))

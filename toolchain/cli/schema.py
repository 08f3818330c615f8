"""`glyphpress schema`: the JSON schemas of policies, recipes, sidecars, reports, verdicts and what `--json` prints."""

from __future__ import annotations

import rich_click as click

from targets.errors import nearest
from toolchain.cli import complete, console
from toolchain.core.errors import UsageProblem


@click.command()
@click.argument("name", required=False, shell_complete=complete.SCHEMA)
def schema(*, name: str | None) -> None:
    """Print a JSON schema, or list all: of policies, recipes, sidecars, reports, verdicts and what `--json` prints.

    \b
    Example:
      glyphpress schema policy > policy.schema.json
      glyphpress schema
    """
    from toolchain.cli.json_schemas import SCHEMAS, STABILITY, schema_text

    if name is None:
        width = max(map(len, SCHEMAS))
        for each, described in SCHEMAS.items():
            console.tell(f"{each:{width}}  {described.what}")
        console.tell(f"stability: {STABILITY}")
    elif name in SCHEMAS:
        console.write(schema_text(name), newline=False)
    else:
        raise UsageProblem(f"no schema '{name}'; {nearest(name, SCHEMAS, 'see `glyphpress schema`')}")

"""`glyphpress plugins`: what other packages add, and what of it works."""

from __future__ import annotations

from dataclasses import asdict

import rich_click as click

from toolchain.cli import console, options


@click.command()
@click.option("--all", "built_in", is_flag=True, help="List what is built in too.")
@options.json_option
def plugins(*, built_in: bool, as_json: bool) -> None:
    """List the plug-ins that installed packages add, and whether they load.

    A package adds targets, formats, schemes, limits, data readers, recipes and models by entry points. Each is imported
    here once; elsewhere, when its name is used. `glyphpress --no-plugins` and GLYPHPRESS_NO_PLUGINS=1 turn all of them
    off.

    \b
    Example:
      glyphpress plugins --json
    """
    from toolchain.commands.plugins import BUILT_IN, listed

    rows = [row for row in listed() if built_in or row.package != BUILT_IN]
    if as_json:
        console.emit("plugins", {"plugins": [asdict(row) for row in rows]})
        return
    if not rows:
        console.tell("no plug-ins are installed")
    for row in rows:
        state = row.state + (f": {row.reason}" if row.reason else "")
        console.tell(f"{row.kind:8} {row.name:20} {f'{row.package} {row.version}':32} {state}")

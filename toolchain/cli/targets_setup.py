"""`glyphpress targets setup`: make a place ready, once, before anything is measured there."""

from __future__ import annotations

import rich_click as click

from toolchain.cli import complete, console
from toolchain.cli.options import force_option, json_option


@click.command()
@click.argument("name", metavar="TARGET", shell_complete=complete.TARGET)
@force_option
@json_option
def setup(name: str, force: bool, as_json: bool) -> None:
    """Ready a board over ssh (the agent and its wheels are pushed), or build the root of the emulated processors.

    What is there already is not done again. The board needs ssh and Python 3.9, and no network.

    \b
    Example:
      glyphpress targets setup ssh://pi@kitchen
    """
    from targets import catalog
    from targets import setup as ready

    with console.progress() as progress:
        done = ready.set_up(catalog.address(name), force=force, progress=progress)
    if as_json:
        console.emit("targets-setup", {"name": name, "done": done})
        return
    for line in done or [f"{name}: nothing to do, all is there"]:
        console.tell(line)

"""`glyphpress recipe`: the named ways to press a model."""

from __future__ import annotations

import rich_click as click

from toolchain.cli import complete, console, options
from toolchain.cli.groups import NearestGroup


@click.group(cls=NearestGroup)
def recipe() -> None:
    """List and show recipes. `glyphpress schema recipe` prints the JSON schema of a recipe file.

    \b
    Example:
      glyphpress recipe list
    """


@recipe.command("list")
@options.json_option
def list_(*, as_json: bool) -> None:
    """List the shipped recipes, and those of plug-ins.

    \b
    Example:
      glyphpress recipe list
    """
    from toolchain.recipe import REGISTRY

    recipes = REGISTRY.all()
    if as_json:
        console.emit("recipe-list", {"recipes": [listed.model_dump() for listed in recipes.values()]})
        return
    width = max(map(len, recipes))
    for name, listed in recipes.items():
        click.echo(f"{name:{width}}  {listed.summary}")


@recipe.command()
@click.argument("name", metavar="RECIPE", shell_complete=complete.RECIPE)
@options.json_option
def show(*, name: str, as_json: bool) -> None:
    """Show a recipe as TOML with every default filled in, as a start for your own.

    \b
    Example:
      glyphpress recipe show pruned-static-int8 > mine.toml
    """
    from toolchain.recipe import find

    chosen = find(name)
    if as_json:
        console.emit("recipe-show", chosen.model_dump())
    else:
        click.echo(chosen.toml(), nl=False)

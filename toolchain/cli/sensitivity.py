"""`glyphpress sensitivity`: which layers can be pruned, and by how much."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from toolchain.cli import complete, console, options, prune_options
from toolchain.cli.checkpoint_options import checkpoint_options


@click.command()
@click.argument("checkpoint", shell_complete=complete.CHECKPOINT)
@checkpoint_options
@options.data_option
@prune_options.method_option("structured", "magnitude")
@prune_options.importance_options
@click.option("--tolerance", type=options.POINTS, default="1pp", show_default=True, help="Fall that a layer may cause.")
@click.option("-o", "--output", type=options.FILE, help="Save the curves as JSON.")
@click.option("--plot", "picture", type=options.FILE, help="Draw the curves, a chart a layer (.svg).")
@click.option("--recipe", "recipe_file", type=options.FILE, help="Write the proposal as a recipe (.toml).")
@options.seed_option
@options.threads_option(0)
@options.force_option
@options.json_option
def sensitivity(
    *,
    checkpoint: str,
    request: Any,
    output: Path | None,
    picture: Path | None,
    recipe_file: Path | None,
    force: bool,
    as_json: bool,
    **how: Any,
) -> None:
    """Prune each layer alone at rising ratios and see how much worse the model reads; propose a ratio for each.

    Read are validation images of the train split, never the test split. --recipe writes what `press --recipe` takes.

    \b
    Example:
      glyphpress sensitivity cnn-small --data emnist:balanced --plot layers.svg
      glyphpress sensitivity cnn-small --data builtin:digits --recipe mine.toml
    """
    from targets.escapes import json_text
    from toolchain.commands.compress import sensitivity_of
    from toolchain.files import refuse_unfit, write_whole
    from toolchain.report.sensitivity import plot, show_sensitivity

    for path, suffix in ((output, ".json"), (picture, ".svg"), (recipe_file, ".toml")):
        if path:
            refuse_unfit(path, suffix, force=force)
    with console.progress() as progress:
        found = sensitivity_of(checkpoint, request, progress=progress, **how)
    if output:
        write_whole(output, json_text(found.to_dict(), indent=1) + "\n", force=force)
    if picture:
        write_whole(picture, plot(found), force=force)
    if as_json:
        console.emit("sensitivity", found.to_dict())
    else:
        show_sensitivity(found, console.out())
    if recipe_file:
        write_whole(recipe_file, found.recipe(recipe_file.stem).toml(), force=force)

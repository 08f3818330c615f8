"""`glyphpress prune`: a checkpoint with fewer channels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from toolchain.cli import complete, console, options
from toolchain.cli.checkpoint_options import checkpoint_options


@click.command()
@click.argument("checkpoint", shell_complete=complete.CHECKPOINT)
@checkpoint_options
@options.data_option
@click.option("--ratio", type=options.POINTS, default="25%", show_default=True, help="Share of the channels that goes.")
@click.option("--epochs", type=click.IntRange(0), default=4, show_default=True, help="Epochs of fine-tuning.")
@click.option("--round-to", type=click.IntRange(1), default=8, show_default=True, help="Channels stay multiples of it.")
@click.option("-o", "--output", type=options.FILE, required=True, help="The .pt2 program to write.")
@options.seed_option
@options.threads_option(0)
@options.force_option
@options.json_option
def prune(
    *,
    checkpoint: str,
    request: Any,
    data: str,
    data_root: Path | None,
    ratio: float,
    epochs: int,
    round_to: int,
    output: Path,
    as_json: bool,
    **run: Any,
) -> None:
    """Remove whole channels and fine-tune the rest; the result is a torch.export program for `export` and `press`.

    \b
    Example:
      glyphpress prune cnn-small --data emnist:balanced --ratio 25% -o pruned.pt2
    """
    from toolchain.stages import prune_checkpoint
    from toolchain.steps import Prune

    if not 0 < ratio < 0.95:
        raise click.BadParameter("give more than 0% and less than 95%", param_hint="--ratio")
    step = Prune(ratio=ratio, epochs=epochs, round_to=round_to)
    with console.progress() as progress:
        model = prune_checkpoint(
            checkpoint, request, step, output, data=data, data_root=data_root, progress=progress, **run
        )
    if as_json:
        console.emit("prune", {"out": str(output), "sha256": model.checkpoint_sha256, "history": model.history})
    else:
        click.echo(f"{output}: {model.history[-1]}")

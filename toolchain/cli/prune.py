"""`glyphpress prune`: a checkpoint with fewer channels, or with zeros in it."""

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
@prune_options.method_option(*prune_options.METHODS)
@prune_options.importance_options
@prune_options.amount_options
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
    output: Path,
    seed: int,
    threads: int,
    force: bool,
    as_json: bool,
    **words: Any,
) -> None:
    """Prune a checkpoint and fine-tune the rest; the result is a torch.export program for `export` and `press`.

    \b
    Example:
      glyphpress prune cnn-small --data emnist:balanced --ratio 25% -o pruned.pt2
      glyphpress prune cnn-small --data emnist:balanced --macs 3M -o s.pt2
    """
    from toolchain.commands.compress import compress_checkpoint

    run: dict[str, Any] = {"data": data, "data_root": data_root, "seed": seed, "threads": threads, "force": force}
    step = prune_options.step_of(words)
    with console.progress() as progress:
        model = compress_checkpoint(checkpoint, request, step, output, progress=progress, **run)
    if as_json:
        console.emit("prune", {"out": str(output), "sha256": model.checkpoint_sha256, "history": model.history})
    else:
        console.tell(f"{output}: {model.history[-1]}")
        for line in model.history[:-1]:
            console.tell(line)

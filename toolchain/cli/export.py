"""`glyphpress export`: a checkpoint to a float ONNX or TFLite file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from toolchain.cli import complete, console, options
from toolchain.cli.checkpoint_options import checkpoint_options


@click.command()
@click.argument("checkpoint", shell_complete=complete.CHECKPOINT)
@checkpoint_options
@options.optional_data_option
@click.option("-o", "--output", type=options.FILE, required=True, help="The .onnx or .tflite file to write.")
@options.seed_option
@options.force_option
@options.json_option
def export(
    *,
    checkpoint: str,
    request: Any,
    data: str | None,
    data_root: Path | None,
    output: Path,
    seed: int,
    force: bool,
    as_json: bool,
) -> None:
    """Convert a checkpoint to float ONNX or TFLite, checked against the model it was made from.

    --data tells the classes, and how the model wants its images, where the checkpoint does not.

    \b
    Example:
      glyphpress export cnn-small -o cnn.float.onnx
    """
    from toolchain.stages import export_checkpoint

    artifact = export_checkpoint(checkpoint, request, output, data=data, data_root=data_root, seed=seed, force=force)
    if as_json:
        console.emit("export", artifact.facts())
    else:
        click.echo(f"{artifact.path}: {artifact.size:,} bytes, sha256 {artifact.sha256}")

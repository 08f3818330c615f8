"""`glyphpress adopt`: a sidecar for a model file that glyphpress did not make."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from toolchain.cli import console, options
from toolchain.cli.checkpoint_options import preprocess_options

if TYPE_CHECKING:
    from targets.preprocess import Preprocess
    from toolchain.core.context import RunContext


@click.command()
@click.argument("file", type=options.FILE)
@options.data_option
@options.classes_option
@preprocess_options
@options.run_options(force=True)
@options.json_option
def adopt(*, file: Path, data: str, preprocess: Preprocess | None, context: RunContext, as_json: bool) -> None:
    """Write the sidecar of an .onnx or .tflite of your own: its classes, and how it wants its images.

    Without options, this is found on the train split of --data. The file itself is not changed.

    \b
    Example:
      glyphpress adopt theirs.tflite --data emnist:balanced --orientation transpose
    """
    from calibration.load import load
    from toolchain.evaluation.untracked import training_images, write_sidecar

    root = context.data_root
    images = training_images(data, root)() if preprocess is None else load(data, "test", root)
    artifact = write_sidecar(file, images, preprocess, force=context.force)
    if as_json:
        console.emit("adopt", artifact.facts())
    else:
        console.tell(f"{artifact.sidecar}: {len(artifact.classes)} classes, {artifact.notes[0]}")

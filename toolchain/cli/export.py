"""`glyphpress export`: a checkpoint to a float ONNX, ORT or TFLite file, an .onnx artifact to .ort."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from toolchain.cli import complete, console, options
from toolchain.cli.checkpoint_options import checkpoint_options

if TYPE_CHECKING:
    from toolchain.checkpoint.request import CheckpointRequest
    from toolchain.core.context import RunContext


@click.command()
@click.argument("checkpoint", shell_complete=complete.CHECKPOINT)
@checkpoint_options
@options.optional_data_option
@click.option("-o", "--output", type=options.FILE, required=True, help="The .onnx, .ort or .tflite file to write.")
@click.option(
    "--ops-config", is_flag=True, help="For an .ort: list its operators in MODEL.required_operators.config beside it."
)
@click.option(
    "--this-cpu", is_flag=True, help="Optimize a float .ort for this kind of x86 processor: faster, but only there."
)
@options.run_options(seed=True, force=True)
@options.json_option
def export(
    *,
    checkpoint: str,
    request: CheckpointRequest,
    data: str | None,
    output: Path,
    ops_config: bool,
    this_cpu: bool,
    context: RunContext,
    as_json: bool,
) -> None:
    """Convert a checkpoint to float ONNX or TFLite, or an .onnx made by glyphpress to .ort, and check the result.

    --data gives the classes, and how the model wants its images, if the checkpoint does not say so. --ops-config is for
    building an ONNX Runtime with only the file's operators.

    \b
    Example:
      glyphpress export cnn-small -o cnn.float.onnx
      glyphpress export cnn-small.static-int8.onnx -o cnn.ort --ops-config
    """
    from toolchain.commands.export import export_checkpoint

    artifact = export_checkpoint(
        checkpoint, request, output, data=data, ops_config=ops_config, this_cpu=this_cpu, context=context
    )
    if as_json:
        console.emit("export", artifact.facts())
    else:
        console.tell(f"{artifact.path}: {artifact.size:,} bytes, sha256 {artifact.sha256}")
        for note in artifact.notes:
            console.tell(note)

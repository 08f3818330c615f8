"""`glyphpress inspect`, `adopt` and `export`: what a model file holds, a sidecar for it, and its conversion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from toolchain.cli import complete, console, options, values
from toolchain.cli.checkpoint_options import checkpoint_options, preprocess_options, source_options

if TYPE_CHECKING:
    from targets.preprocess import Preprocess
    from toolchain.checkpoint.load import CheckpointRequest
    from toolchain.core.context import RunContext


@click.command()
@click.argument("file", metavar="FILE", shell_complete=complete.ANY_MODEL)
@source_options
@options.packed_option
@options.run_options()
@options.json_option
def inspect(
    *,
    file: str,
    model: str | None,
    trust_pickle: bool,
    weights: str | None,
    packed: bool,
    context: RunContext,
    as_json: bool,
) -> None:
    """Show what a checkpoint, .onnx or .tflite holds: layers, shapes, parameters, MACs, dtypes, sizes, metadata.

    \b
    Example:
      glyphpress inspect cnn-small
    """
    from toolchain.checkpoint.inspection import inspect_file
    from toolchain.formats import catalog
    from toolchain.formats.inspection import shown_size
    from toolchain.report.model_tables import show_inspection

    inspection = inspect_file(file, model=model, trust_pickle=trust_pickle, weights=weights)
    if inspection.kind in catalog.REGISTRY:
        inspection = replace(inspection, packed=shown_size(inspection.path, asked=packed, progress=context.progress))
    if as_json:
        from toolchain.core.json_codec import to_json

        console.emit("inspect", to_json(inspection) | {"bytes_by_dtype": inspection.bytes_by_dtype})
    else:
        show_inspection(inspection, console.out())


@click.command()
@click.argument("file", type=values.FILE, shell_complete=complete.ARTIFACT)
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


@click.command()
@click.argument("checkpoint", shell_complete=complete.CHECKPOINT)
@checkpoint_options
@options.optional_data_option
@click.option(
    "-o", "--output", type=values.OUTPUT_FILE, required=True, help="The .onnx, .ort or .tflite file to write."
)
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

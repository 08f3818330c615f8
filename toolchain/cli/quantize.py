"""`glyphpress quantize`: a float ONNX or TFLite file to an int8 one."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from toolchain.cli import console, options

SCHEMES = ("dynamic-int8", "static-int8", "static-int8-act16")


@click.command()
@click.argument("artifact", type=options.FILE)
@click.option("--scheme", type=click.Choice(SCHEMES), default="static-int8", show_default=True, help="How.")
@options.optional_data_option
@click.option(
    "--calibration-images", type=click.IntRange(8), default=512, show_default=True, help="Of the train split."
)
@click.option("--integer-io", is_flag=True, help="Integer input and output (TFLite, static schemes).")
@click.option("--full-range", is_flag=True, help="ONNX: weights of 8 bits, which saturate on x86 without VNNI.")
@click.option("-o", "--output", type=options.FILE, required=True, help="The file to write, of the same format.")
@options.seed_option
@options.force_option
@options.json_option
def quantize(
    *,
    artifact: Path,
    scheme: str,
    data: str | None,
    data_root: Path | None,
    calibration_images: int,
    integer_io: bool,
    full_range: bool,
    output: Path,
    seed: int,
    force: bool,
    as_json: bool,
) -> None:
    """Quantize a float artifact, or a float .onnx of your own, to 8 bits.

    Static schemes take their ranges from a calibration set drawn from the train split of --data.

    \b
    Example:
      glyphpress quantize cnn.float.onnx --data emnist:balanced -o cnn.int8.onnx
    """
    from toolchain.stages import quantize_file
    from toolchain.steps import Quantize

    words = {"scheme": scheme, "calibration_images": calibration_images, "integer_io": integer_io}
    step = Quantize.model_validate(words | {"reduce_range": not full_range})
    made = quantize_file(artifact, step, output, data=data, data_root=data_root, seed=seed, force=force)
    if as_json:
        console.emit("quantize", made.facts())
    else:
        click.echo(f"{made.path}: {made.size:,} bytes, {artifact.stat().st_size / made.size:.1f}x smaller")

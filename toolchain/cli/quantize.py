"""`glyphpress quantize`: a float ONNX or TFLite file to one of fewer bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from toolchain.cli import console, options

SCHEMES = (
    *("dynamic-int8", "dynamic-int4", "static-int8", "static-int8-act16", "static-int4"),
    *("weight-int8", "weight-int4", "float16"),
)


@click.command()
@click.argument("artifact", type=options.FILE)
@click.option("--scheme", type=click.Choice(SCHEMES), default="static-int8", show_default=True, help="How.")
@click.option("--per-tensor", is_flag=True, help="One scale for a whole weight, not for each of its channels.")
@click.option("--activations", type=click.Choice(["uint8", "int8"]), help="Static; by default uint8, TFLite int8.")
@options.optional_data_option
@click.option(
    "--calibration-images", type=click.IntRange(8), default=512, show_default=True, help="Of the train split."
)
@click.option("--integer-io", is_flag=True, help="Static: take raw uint8 pixels, the preprocessing in the file.")
@click.option("--full-range", is_flag=True, help="ONNX: int8 weights of 8 bits, which saturate on x86 without VNNI.")
@click.option("-o", "--output", type=options.FILE, required=True, help="The file to write, of the same format.")
@options.seed_option
@options.force_option
@options.json_option
def quantize(
    *,
    artifact: Path,
    output: Path,
    per_tensor: bool,
    full_range: bool,
    data: str | None,
    data_root: Path | None,
    seed: int,
    force: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Quantize a float artifact, or a float .onnx of your own, to 16, 8 or 4 bits.

    Static schemes take their ranges from a calibration set drawn from the train split of --data. What a format has no
    files or kernels for is refused with the reason.

    \b
    Example:
      glyphpress quantize cnn.float.onnx --data emnist:balanced -o cnn.int8.onnx
    """
    from toolchain.stages import quantize_file
    from toolchain.steps import Quantize

    step = Quantize.asked(**settings, per_channel=not per_tensor, reduce_range=False if full_range else None)
    made = quantize_file(artifact, step, output, data=data, data_root=data_root, seed=seed, force=force)
    if as_json:
        console.emit("quantize", made.facts())
    else:
        click.echo(f"{made.path}: {made.size:,} bytes, {artifact.stat().st_size / made.size:.1f}x smaller")

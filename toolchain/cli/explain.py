"""`glyphpress explain`: where a quantized file loses what its float file knew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from toolchain.cli import console, options

if TYPE_CHECKING:
    from toolchain.core.context import RunContext


@click.command()
@click.argument("base", type=options.FILE)
@click.argument("candidate", type=options.FILE)
@options.data_option
@options.classes_option
@click.option(
    "--images",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="Number of images of the train split, none of them used in calibration.",
)
@options.run_options(seed=True)
@options.json_option
def explain(*, base: Path, candidate: Path, data: str, images: int, context: RunContext, as_json: bool) -> None:
    """Show the error of a quantized file layer by layer, and which operators still run in float and why.

    BASE is the float file, CANDIDATE the quantized one made from it, both .onnx or both .tflite. SQNR is the ratio of
    signal to quantization noise after each layer; `alone` counts only the noise that the layer itself adds.

    \b
    Example:
      glyphpress explain cnn.float.onnx cnn.int8.onnx --data emnist:balanced
    """
    from calibration.load import load, train_split
    from toolchain.commands.explain import explain_files
    from toolchain.report.explanation import show_explanation

    why = "explain reads training images; `glyphpress compare` shows what changed on the test split"
    train, test = train_split(data, context.data_root, why), load(data, "test", context.data_root)
    found = explain_files(base, candidate, train, test, images=images, seed=context.seed, progress=context.progress)
    if as_json:
        console.emit("explain", found.to_dict())
    else:
        show_explanation(found, console.out())

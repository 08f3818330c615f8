"""`glyphpress compare`: what a candidate reads worse and better than its baseline, image by image."""

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
@options.optional_data_option
@options.classes_option
@options.target_option
@options.run_options()
@options.json_option
def compare(
    *, base: Path, candidate: Path, data: str | None, target: str | None, context: RunContext, as_json: bool
) -> None:
    """Compare two model files, or two saved evaluations (.npz), image by image.

    Shows lost, gained and changed answers, the drop in accuracy with its Tango score interval, and the worst classes.
    Model files need `--data`; for saved evaluations it checks that they are of those images.
    Stored timings are compared by `glyphpress report`.

    \b
    Example:
      glyphpress compare float.onnx int8.onnx --data emnist:balanced
    """
    from calibration.load import load
    from toolchain.evaluation.untracked import training_images
    from toolchain.gate.collect import compare_files
    from toolchain.report.reading import show_comparison

    dataset = load(data, "test", context.data_root) if data else None
    train = training_images(data, context.data_root) if data else None
    comparison = compare_files(base, candidate, dataset, train=train, target=target, progress=context.progress)
    if as_json:
        console.emit("compare", comparison.to_dict())
    else:
        show_comparison(comparison, console.out())

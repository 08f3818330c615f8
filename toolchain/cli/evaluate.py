"""`glyphpress evaluate`: how well an exported file itself reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from toolchain.cli import console, options

if TYPE_CHECKING:
    from toolchain.core.context import RunContext


@click.command()
@click.argument("artifact", type=options.FILE)
@options.data_option
@options.classes_option
@options.target_option
@click.option("-o", "--output", type=options.FILE, help="Save the answers (.npz) for `compare` and `gate`.")
@options.run_options(threads=0, force=True)
@options.json_option
def evaluate(
    *,
    artifact: Path,
    data: str,
    target: str | None,
    output: Path | None,
    context: RunContext,
    as_json: bool,
) -> None:
    """Run an exported file over the whole test split: accuracy, per class, confusions.

    \b
    Example:
      glyphpress evaluate int8.onnx --data emnist:balanced -o int8.npz
    """
    from calibration.load import load
    from toolchain.core.files import refuse_source, refuse_unfit
    from toolchain.evaluation.metrics import measure
    from toolchain.evaluation.untracked import training_images
    from toolchain.gate.candidate import evaluate_file
    from toolchain.report.reading import show_evaluation

    if output:
        refuse_source(output, artifact)
        refuse_unfit(output, ".npz", force=context.force)
    dataset = load(data, "test", context.data_root)
    train = training_images(data, context.data_root)
    evaluation = evaluate_file(
        artifact, dataset, train=train, target=target, threads=context.threads, progress=context.progress
    )
    metrics = measure(evaluation)
    if output:
        evaluation.save(output, force=context.force)
    if as_json:
        console.emit("evaluate", evaluation.to_dict() | {"metrics": metrics.to_dict()})
    else:
        show_evaluation(evaluation, metrics, console.out())

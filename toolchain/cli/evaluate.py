"""`glyphpress evaluate`: how well an exported file itself reads."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from toolchain.cli import console, options


@click.command()
@click.argument("artifact", type=options.FILE)
@options.data_option
@options.classes_option
@options.target_option
@options.threads_option(0)
@click.option("-o", "--output", type=options.FILE, help="Save the answers (.npz) for `compare` and `gate`.")
@options.force_option
@options.json_option
def evaluate(
    *,
    artifact: Path,
    data: str,
    data_root: Path | None,
    target: str | None,
    threads: int,
    output: Path | None,
    force: bool,
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
        refuse_unfit(output, ".npz", force=force)
    dataset = load(data, "test", data_root)
    with console.progress() as progress:
        train = training_images(data, data_root)
        evaluation = evaluate_file(artifact, dataset, train=train, target=target, threads=threads, progress=progress)
    metrics = measure(evaluation)
    if output:
        evaluation.save(output, force=force)
    if as_json:
        console.emit("evaluate", evaluation.to_dict() | {"metrics": metrics.to_dict()})
    else:
        show_evaluation(evaluation, metrics, console.out())

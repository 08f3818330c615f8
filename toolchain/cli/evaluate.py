"""`glyphpress evaluate`, `compare` and `explain`: how well a file reads, and how its answers differ from another's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from toolchain.cli import complete, console, options, values

if TYPE_CHECKING:
    from toolchain.core.context import RunContext
    from toolchain.report.per_class import Order


@click.command()
@click.argument("artifact", type=values.FILE, shell_complete=complete.ARTIFACT)
@options.data_option
@options.classes_option
@options.target_option
@click.option(
    "-o",
    "--output",
    "outputs",
    type=values.OUTPUT_FILE,
    multiple=True,
    help="Save the answers (.npz) for `compare` and `gate`, or the sheet of --errors (.png).",
)
@click.option(
    "--errors",
    "errors",
    type=values.Whole(1, 400),
    metavar="N",
    help="Show the N wrong answers of which the model was surest; with -o FILE.png also as a sheet of pictures.",
)
@click.option("--confusion", type=values.OUTPUT_FILE, help="Draw the confusion matrix into this file (.svg).")
@click.option(
    "--csv", type=values.OUTPUT_FILE, help="Write the table of classes, with every wrong answer, to this file."
)
@click.option(
    "--sort",
    "order",
    type=values.Choice(["class", "accuracy"]),
    default="class",
    show_default=True,
    help="Order of the classes: as the model numbers them, or the one that is read worst first.",
)
@click.option(
    "--hypothesis",
    type=values.PROPER_SHARE,
    help="Say whether the images accept or reject that at least this share is read, such as 95%.",
)
@options.run_options(threads=0, force=True)
@options.json_option
def evaluate(
    *,
    artifact: Path,
    data: str,
    target: str | None,
    outputs: tuple[Path, ...],
    errors: int | None,
    confusion: Path | None,
    csv: Path | None,
    order: Order,
    hypothesis: float | None,
    context: RunContext,
    as_json: bool,
) -> None:
    """Run an exported file over the whole test split: accuracy, per class, confusions.

    For each class the table has its images, how many were read right, and as what the others were misread.

    \b
    Example:
      glyphpress evaluate int8.onnx --data emnist:balanced -o int8.npz
      glyphpress evaluate int8.onnx --data builtin:digits --sort accuracy
      glyphpress evaluate int8.onnx --data emnist:balanced --errors 40 -o sheet.png
    """
    from calibration.load import load
    from toolchain.core.json_codec import to_json
    from toolchain.evaluation.metrics import Hypothesis, measure
    from toolchain.evaluation.mistakes import surest_mistakes
    from toolchain.evaluation.untracked import training_images
    from toolchain.gate.candidate import evaluate_file
    from toolchain.report.evaluation_files import EvaluationFiles
    from toolchain.report.gate_terminal import show_evaluation, show_mistakes
    from toolchain.report.per_class import ordered

    answers, sheet = _outputs(outputs, errors)
    files = EvaluationFiles(answers, sheet, csv, confusion)
    files.refuse_unfit(artifact, force=context.force)
    dataset = load(data, "test", context.data_root)
    train = training_images(data, context.data_root)
    evaluation = evaluate_file(artifact, dataset, train=train, target=target, context=context)
    metrics = ordered(measure(evaluation), order)
    tested = None if hypothesis is None else Hypothesis.test(hypothesis, metrics)
    mistakes = surest_mistakes(evaluation, errors) if errors else ()
    if as_json:
        verdict = {"hypothesis": to_json(tested)} if tested else {}
        listed = {"errors": to_json(mistakes)} if errors else {}
        console.emit("evaluate", evaluation.to_dict() | {"metrics": metrics.to_dict()} | listed | verdict)
    else:
        show_evaluation(evaluation, metrics, console.out())
        if errors:
            show_mistakes(mistakes, console.out())
        if tested:
            console.tell(f"hypothesis: {tested.sentence()}")
    # Last, so that a file that cannot be written costs no result.
    files.write(evaluation, metrics, mistakes, dataset.images, force=context.force)


def _outputs(outputs: tuple[Path, ...], errors: int | None) -> tuple[Path | None, Path | None]:
    """Return the file for the answers and the one for the sheet of wrong answers."""
    by_suffix: dict[str, Path] = {}
    for path in outputs:
        if path.suffix not in {".npz", ".png"}:
            raise click.UsageError(f"-o {path}: answers are saved as .npz, the sheet of --errors as .png; name it so")
        if path.suffix in by_suffix:
            raise click.UsageError(f"-o names two {path.suffix} files; give one")
        by_suffix[path.suffix] = path
    if ".png" in by_suffix and errors is None:
        raise click.UsageError(f"-o {by_suffix['.png']}: a sheet needs the number of wrong answers; add --errors 40")
    return by_suffix.get(".npz"), by_suffix.get(".png")


@click.command()
@click.argument("base", type=values.FILE, shell_complete=complete.EVALUATED)
@click.argument("candidate", type=values.FILE, shell_complete=complete.EVALUATED)
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
    Model files need --data; saved evaluations need not, but --data checks that they are of those images.
    `glyphpress report` compares stored timings.

    \b
    Example:
      glyphpress compare float.onnx int8.onnx --data emnist:balanced
    """
    from calibration.load import load
    from toolchain.core.json_codec import to_json
    from toolchain.evaluation.untracked import training_images
    from toolchain.gate.collect import compare_files
    from toolchain.report.gate_terminal import show_comparison

    dataset = load(data, "test", context.data_root) if data else None
    train = training_images(data, context.data_root) if data else None
    comparison = compare_files(base, candidate, dataset, train=train, target=target, progress=context.progress)
    if as_json:
        console.emit("compare", to_json(comparison))
    else:
        show_comparison(comparison, console.out())
        if comparison.kappa is not None:
            console.tell(f"kappa      {comparison.kappa:.4f}  agreement of both files beyond chance")


@click.command()
@click.argument("base", type=values.FILE, shell_complete=complete.EVALUATED)
@click.argument("candidate", type=values.FILE, shell_complete=complete.EVALUATED)
@options.data_option
@options.classes_option
@click.option(
    "--images",
    type=values.Whole(1),
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
    from toolchain.commands.explain import explain_files
    from toolchain.report.model_tables import show_explanation

    explanation = explain_files(base, candidate, data, context, images=images)
    if as_json:
        console.emit("explain", explanation.to_dict())
    else:
        show_explanation(explanation, console.out())

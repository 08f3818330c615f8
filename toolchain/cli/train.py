"""`glyphpress train`: fit a reference model to labelled glyphs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from toolchain import models
from toolchain.cli import complete, console, options, values
from toolchain.cli.checkpoint_options import preprocess_options
from toolchain.cli.estimator_options import estimator_options
from toolchain.cli.record_options import Records, record_options
from toolchain.cli.setting_options import ChosenSettings, setting_options
from toolchain.cli.start_options import ChosenStart, start_options

if TYPE_CHECKING:
    from calibration.dataset import Dataset
    from targets.preprocess import Preprocess
    from toolchain.commands.train import NetworkTraining
    from toolchain.core.context import RunContext
    from toolchain.training.fit import EpochResult
    from toolchain.training.folds import CrossValidation, FoldResult
    from toolchain.training.train import TrainResult

DEFAULT_MODEL = "cnn-small"


@click.command()
@click.option(
    "--model",
    metavar="NAME",
    shell_complete=complete.MODEL,
    help=f"Reference model: {', '.join((*models.names(), *models.ESTIMATORS))}. With --from, the class of its weights, "
    f"as in `press`. Default: {DEFAULT_MODEL}, or what the file of --from names.",
)
@options.data_option
@options.classes_option
@click.option(
    "-o",
    "--output",
    type=values.OUTPUT_FILE,
    help="The .pt or .safetensors file to write; .onnx for scikit-learn's models. Only --folds runs without it.",
)
@click.option(
    "--folds",
    type=values.Whole(2, 1000),
    metavar="K",
    help="Cross-validate first: fit K times to the train split without a K-th of each class, and measure on that. "
    "This writes no file; with -o the model is then fitted to the whole train split.",
)
@record_options
@setting_options
@start_options
@preprocess_options
@options.run_options(seed=True, threads=0, resume=True, force=True)
@options.json_option
@estimator_options
@options.names_options()
def train(
    *,
    model: str | None,
    data: str,
    output: Path | None,
    folds: int | None,
    records: Records,
    chosen: ChosenSettings,
    starting: ChosenStart | None,
    preprocess: Preprocess | None,
    context: RunContext,
    as_json: bool,
) -> None:
    """Train a reference model on a train split and measure it once on the test split.

    Without a test split, a fifth of the train split is held out for that. The file is rewritten after each epoch, so
    Ctrl-C leaves the last finished epoch. The same seed and threads on the same machine give the same weights.

    \b
    Example:
      glyphpress train --model cnn-small --data builtin:digits -o model.pt
      glyphpress train --data builtin:digits --folds 5
      glyphpress train --from cnn-small --freeze --data builtin:digits -o d.pt
    """
    from toolchain.commands.train import images_of_folds, images_to_train

    _refuse_outputs(output, records, starting, context, writes_nothing=bool(folds))
    images, test = images_of_folds(data, context) if folds else images_to_train(data, context)
    asked = _asked(images, context, model=model, chosen=chosen, starting=starting, preprocess=preprocess)

    def record(epoch: EpochResult) -> None:
        records.write(f"{asked.model} on {images.origin}", (*epoch.earlier, epoch))

    with asked.resumable(folds, output, context) as run:
        validation = _cross_validate(asked, folds, run, as_json=as_json) if folds else None
        result = asked.fit(images, test, run, out=output, on_epoch=record) if output else None
    if as_json:
        _emit(result, validation)
    else:
        _show(result)


def _asked(
    images: Dataset,
    context: RunContext,
    *,
    model: str | None,
    chosen: ChosenSettings,
    starting: ChosenStart | None,
    preprocess: Preprocess | None,
) -> NetworkTraining:
    """Return the training that the options describe, with the notes on its start shown."""
    from toolchain.commands.train import NetworkTraining

    start = starting.of(images, model, preprocess, context) if starting else None
    for note in start.notes if start else ():
        console.say(note)
    architecture = start.name if start else model or DEFAULT_MODEL
    settings = chosen.of(len(images), architecture)
    return NetworkTraining(images, architecture, settings, not chosen.sets_batch, preprocess, start)


def _refuse_outputs(
    output: Path | None, records: Records, starting: ChosenStart | None, context: RunContext, *, writes_nothing: bool
) -> None:
    """Raise what keeps the files from being written, before the training. writes_nothing: where `output` is None."""
    from toolchain.core.files import refuse_source
    from toolchain.core.resume import may_replace
    from toolchain.models.saving import refuse_unfit

    if output:
        refuse_unfit(output, force=may_replace(output, context))
        if starting:
            refuse_source(output, starting.checkpoint)
    elif not writes_nothing:
        raise click.UsageError("Missing option '-o', the file to write; only --folds runs without it")
    elif records.log or records.curve:
        raise click.UsageError("--log and --curve belong to the training of a file; give -o too")
    records.refuse_unfit(force=context.force or context.resume)


def _cross_validate(asked: NetworkTraining, folds: int, context: RunContext, *, as_json: bool) -> CrossValidation:
    from toolchain.core.quantities import percent_text
    from toolchain.report.folds import folds_text

    def on_fold(fold: FoldResult) -> None:
        console.say(f"fold {fold.fold} of {folds}: {percent_text(fold.accuracy)} of {fold.images:,} images")

    result = asked.cross_validate(folds, on_fold, context)
    if not as_json:
        console.write(folds_text(result))
    return result


def _emit(result: TrainResult | None, validation: CrossValidation | None) -> None:
    """Print the training as JSON, with its cross-validation, or the cross-validation alone."""
    if result:
        folds = {"cross_validation": validation.to_dict()} if validation else {}
        console.emit("train", result.to_dict() | folds)
    elif validation:
        console.emit("folds", validation.to_dict())


def _show(result: TrainResult | None) -> None:
    from toolchain.core.quantities import counted, percent_text
    from toolchain.stats.share import wilson

    if result is None:
        console.tell("no file was written; with -o the model is then fitted to the whole train split")
        return
    console.tell(
        f"{result.out}: {result.facts['model']}, {result.parameters:,} parameters, "
        f"{counted(len(result.epochs), 'epoch')}"
    )
    if test := result.facts.get("test"):
        low, high = wilson(test["right"], test["images"])
        console.tell(
            f"test accuracy {percent_text(test['accuracy'])} on {test['images']:,} images of {test['origin']}, "
            f"95 % interval {percent_text(low)} to {percent_text(high)}"
        )
    else:
        console.tell(
            "there is no test split, so this model was not measured; the folds measured others with its settings"
        )

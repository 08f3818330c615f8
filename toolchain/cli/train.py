"""`glyphpress train`: fit a reference model to labelled glyphs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from toolchain import models
from toolchain.cli import complete, console, options, values
from toolchain.cli.setting_options import ChosenSettings, setting_options

if TYPE_CHECKING:
    from toolchain.core.context import RunContext
    from toolchain.training.train import EpochResult, TrainResult


@click.command()
@click.option(
    "--model",
    default="cnn-small",
    show_default=True,
    metavar="NAME",
    shell_complete=complete.MODEL,
    help=f"Reference architecture: {', '.join(models.names())}.",
)
@options.data_option
@options.classes_option
@click.option(
    "-o", "--output", "--out", type=values.OUTPUT_FILE, required=True, help="The .pt or .safetensors file to write."
)
@setting_options
@options.run_options(seed=True, threads=0, force=True)
@options.json_option
@options.names_options()
def train(
    *,
    model: str,
    data: str,
    output: Path,
    chosen: ChosenSettings,
    context: RunContext,
    as_json: bool,
) -> None:
    """Train a reference model on a train split and measure it once on the test split.

    Without a test split, a fifth of the train split is held out for that. The file is rewritten after each epoch, so
    Ctrl-C leaves the last finished epoch. The same seed and threads on the same machine give the same weights.

    \b
    Example:
      glyphpress train --model cnn-small --data builtin:digits -o model.pt
    """
    from calibration.dataset import Dataset
    from calibration.load import load_or_why, train_split
    from calibration.sample import split_off_test
    from toolchain.models.saving import refuse_unfit
    from toolchain.training import train as training

    refuse_unfit(output, force=context.force)
    images = train_split(data, context.data_root, "train needs training images")
    test = load_or_why(data, "test", context.data_root)
    if not isinstance(test, Dataset):
        console.say(f"{data} has no test split, so a fifth of each class of the train split is held out to test")
        images, test = split_off_test(images)
    settings = chosen.of(len(images), model)
    result = training.train(
        images,
        model=model,
        settings=settings,
        test=test,
        out=output,
        on_start=console.say,
        on_epoch=_epoch,
        context=context,
    )
    if as_json:
        console.emit("train", result.to_dict())
    else:
        _show(result)


def _epoch(epoch: EpochResult) -> None:
    from toolchain.core.quantities import percent_text, time_text

    held_out = "" if epoch.held_out_accuracy is None else f", held out {percent_text(epoch.held_out_accuracy)}"
    console.say(f"epoch {epoch.epoch}/{epoch.epochs}: loss {epoch.loss:.3f}{held_out}, {time_text(epoch.seconds)}")


def _show(result: TrainResult) -> None:
    from toolchain.core.quantities import percent_text
    from toolchain.evaluation.metrics import wilson

    test = result.facts["test"]
    low, high = wilson(test["right"], test["images"])
    console.tell(
        f"{result.out}: {result.facts['model']}, {result.parameters:,} parameters, {len(result.epochs)} epochs"
    )
    console.tell(
        f"test accuracy {percent_text(test['accuracy'])} on {test['images']:,} images of {test['origin']}, "
        f"95 % interval {percent_text(low)} to {percent_text(high)}"
    )

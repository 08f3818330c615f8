"""The options of every command that takes a checkpoint; apart from the other options, since they import numpy."""

from __future__ import annotations

import functools
from typing import Any, cast, get_args

import rich_click as click

from targets.preprocess import MOST, ORIENTATIONS, Preprocess, Scale
from toolchain.cli import complete, values
from toolchain.cli.options import Command, with_options

_PREPROCESS = ("orientation", "scale", "mean", "std", "invert", "label_offset")
_MODEL_OPTION = click.option(
    "--model",
    metavar="SOURCE",
    shell_complete=complete.MODEL_SOURCE,
    help="The class that the weights belong to: FILE.py:CLASS, MODULE:CLASS, either with (args), or a model name.",
)
_WEIGHTS_OPTIONS = (
    click.option("--trust-pickle", is_flag=True, help="Allow the code in a pickle, .pt2 or TorchScript file to run."),
    click.option(
        "--weights",
        metavar="KEY",
        shell_complete=complete.WEIGHTS_KEY,
        help="Which weights to load from a file with several, such as model_ema. Default: the raw ones.",
    ),
)
_SOURCE_OPTIONS = (_MODEL_OPTION, *_WEIGHTS_OPTIONS)
_READING_OPTIONS = (
    click.option(
        "--classes",
        type=values.CLASSES,
        metavar="CLASSES",
        shell_complete=complete.CLASSES,
        help="Classes of the model's outputs, such as 0-9A-Z or cat,dog; only their images of --data are used. "
        "Default: those that the file or the data names.",
    ),
    click.option(
        "--preprocess",
        type=values.Choice(["auto", "stored"]),
        help="auto finds it with labelled images, stored takes the file's. Default: auto if the file has none.",
    ),
)
_PREPROCESS_OPTIONS = (
    click.option(
        "--orientation", type=values.Choice(ORIENTATIONS), help="Orientation in which the model wants upright images."
    ),
    click.option("--scale", type=values.Choice(get_args(Scale)), help="The pixel range before mean and std."),
    click.option("--mean", type=values.Finite(-MOST, MOST), help="Subtracted after scaling."),
    click.option("--std", type=values.Finite(1 / MOST, MOST), help="Divided by after scaling."),
    click.option("--invert", is_flag=True, default=None, help="The model wants dark ink on white."),
    click.option("--label-offset", type=values.Whole(0), help="Output column of the first class."),
)


def checkpoint_options(command: Command) -> Command:
    """Add the options; the command gets them as one `request: CheckpointRequest`."""

    @functools.wraps(command)
    def wrapped(*args: Any, classes: tuple[str, ...] | None, preprocess: str | None, **kwargs: Any) -> Any:
        from toolchain.checkpoint.load import CheckpointRequest

        given = _preprocess_options_given(kwargs)
        if given and preprocess:
            named = ", ".join("--" + name.replace("_", "-") for name in given)
            raise click.UsageError(f"--preprocess {preprocess} and {named} exclude each other; give one of them")
        request = CheckpointRequest(
            **{name: kwargs.pop(name) for name in ("model", "trust_pickle", "weights")},
            classes=classes or (),
            preprocess=Preprocess(**given) if given else None,
            search={"auto": True, "stored": False, None: None}[preprocess],
        )
        return command(*args, request=request, **kwargs)

    return with_options(cast(Command, wrapped), (*_SOURCE_OPTIONS, *_READING_OPTIONS, *_PREPROCESS_OPTIONS))


def source_options(command: Command) -> Command:
    """Add those of the options that say which weights a checkpoint holds: `model`, `trust_pickle` and `weights`."""
    return with_options(command, _SOURCE_OPTIONS)


def weights_options(command: Command) -> Command:
    """Add `trust_pickle` and `weights`, for a command with a `--model` of its own."""
    return with_options(command, _WEIGHTS_OPTIONS)


def preprocess_options(command: Command) -> Command:
    """Add the options that say how a model wants its images; the command gets `preprocess`, None without any."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        given = _preprocess_options_given(kwargs)
        return command(*args, preprocess=Preprocess(**given) if given else None, **kwargs)

    return with_options(cast(Command, wrapped), _PREPROCESS_OPTIONS)


def _preprocess_options_given(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Take these options out of a command's arguments, and return those that were given."""
    options = {name: kwargs.pop(name) for name in _PREPROCESS}
    return {name: value for name, value in options.items() if value is not None}

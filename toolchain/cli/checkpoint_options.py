"""The options of every command that takes a checkpoint."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast, get_args

import rich_click as click

from targets.preprocess import MOST, ORIENTATIONS, Preprocess, Scale
from toolchain.cli.options import CLASSES, Choice, Command, Finite

weights_option = click.option(
    "--weights",
    metavar="KEY",
    help="Which weights to load from a file with several, such as model_ema. Default: the raw ones.",
)
"""Of every command that reads a checkpoint."""

_PREPROCESS = ("orientation", "scale", "mean", "std", "invert", "label_offset")
_SOURCE_OPTIONS = (
    click.option(
        "--model",
        metavar="SOURCE",
        help="The class that the weights belong to: FILE.py:CLASS, MODULE:CLASS, either with (args), or a model name.",
    ),
    click.option("--trust-pickle", is_flag=True, help="Allow the code in a pickle, .pt2 or TorchScript file to run."),
    weights_option,
    click.option(
        "--classes",
        type=CLASSES,
        metavar="CLASSES",
        help="Classes of the model's outputs, such as 0-9A-Z or cat,dog; only their images of --data are used. "
        "Default: those that the file or the data names.",
    ),
    click.option(
        "--preprocess",
        type=Choice(["auto", "stored"]),
        help="auto finds it with labelled images, stored takes the file's. Default: auto if the file has none.",
    ),
)
_PREPROCESS_OPTIONS = (
    click.option(
        "--orientation", type=Choice(ORIENTATIONS), help="Orientation in which the model wants upright images."
    ),
    click.option("--scale", type=Choice(get_args(Scale)), help="The pixel range before mean and std."),
    click.option("--mean", type=Finite(-MOST, MOST), help="Subtracted after scaling."),
    click.option("--std", type=Finite(1 / MOST, MOST), help="Divided by after scaling."),
    click.option("--invert", is_flag=True, default=None, help="The model wants dark ink on white."),
    click.option("--label-offset", type=click.IntRange(0), help="Output column of the first class."),
)


def checkpoint_options(command: Command) -> Command:
    """Add the options; the command gets them as one `request`, a `toolchain.checkpoint.CheckpointRequest`."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        given = _given(kwargs)
        taken = {name: kwargs.pop(name) for name in ("model", "trust_pickle", "weights")}
        kwargs["request"] = _request(kwargs.pop("classes"), kwargs.pop("preprocess"), given, **taken)
        return command(*args, **kwargs)

    return _with(cast(Command, wrapped), (*_SOURCE_OPTIONS, *_PREPROCESS_OPTIONS))


def preprocess_options(command: Command) -> Command:
    """Add the options that say how a model wants its images; the command gets `preprocess`, None without any."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        given = _given(kwargs)
        return command(*args, preprocess=Preprocess(**given) if given else None, **kwargs)

    return _with(cast(Command, wrapped), _PREPROCESS_OPTIONS)


def _with(command: Command, options: tuple[Callable[[Command], Command], ...]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def _given(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Take the words about the preprocess out of a command's arguments."""
    said = {name: kwargs.pop(name) for name in _PREPROCESS}
    return {name: value for name, value in said.items() if value is not None}


def _request(classes: tuple[str, ...] | None, mode: str | None, given: dict[str, Any], **taken: Any) -> Any:
    # Imported when a command runs, so that --help does not pay for it.
    from toolchain.checkpoint.request import CheckpointRequest

    if given and mode:
        words = ", ".join("--" + name.replace("_", "-") for name in given)
        raise click.UsageError(f"--preprocess {mode} and {words} exclude each other; give one of them")
    return CheckpointRequest(
        **taken,
        classes=classes or (),
        preprocess=Preprocess(**given) if given else None,
        search={"auto": True, "stored": False, None: None}[mode],
    )

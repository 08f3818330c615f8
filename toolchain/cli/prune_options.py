"""The words about pruning: of `prune` all, of `sensitivity` those that say how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import rich_click as click

from toolchain.cli import options
from toolchain.cli.options import Command

METHODS = ("structured", "magnitude", "n:m")
IMPORTANCES = ("l1", "l2", "taylor", "bn-scale", "hessian")


def method_option(*methods: str) -> Callable[[Command], Command]:
    """Add `--method`, one of `methods`."""
    return click.option(
        "--method",
        type=options.Choice(methods),
        default=methods[0],
        show_default=True,
        help="structured: whole channels go. Others: weights become zero, which pays once the file is packed.",
    )


def importance_options(command: Command) -> Command:
    """Add `--importance` and `--round-to`, which structured pruning takes."""
    command = click.option(
        "--round-to", type=click.IntRange(1), default=8, show_default=True, help="Channels stay multiples of it."
    )(command)
    return click.option(
        "--importance",
        type=options.Choice(IMPORTANCES),
        default="l2",
        show_default=True,
        help="Channels: which go first.",
    )(command)


def amount_options(command: Command) -> Command:
    """Add the options that say how much goes, and in how many rounds."""
    for option in reversed(_AMOUNTS):
        command = option(command)
    return command


def _layers(_ctx: click.Context, _param: click.Parameter, words: tuple[str, ...]) -> dict[str, float]:
    """Return ratios by layer, of words such as `features.conv1=25%`."""
    found: dict[str, float] = {}
    for word in words:
        layer, equals, ratio = word.rpartition("=")
        if not equals or not layer:
            raise click.BadParameter(f"'{word}' gives no layer a ratio; write features.conv1=25%")
        if layer in found:
            raise click.BadParameter(f"{layer} is given two ratios; give one")
        found[layer] = options.SHARE.convert(ratio, None, None)
    return found


_AMOUNTS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--ratio", type=options.SHARE, help="Share of the channels, or of the weights, that goes; 25% unless said."
    ),
    click.option("--macs", type=options.COUNT, help="Until at most so many multiply-accumulates are left, such as 3M."),
    click.option("--parameters", type=options.COUNT, help="Until at most so many parameters are left, such as 120k."),
    click.option("--bytes", type=options.SIZE, help="Until float parameters take at most this, such as 250KB."),
    click.option(
        "--layer",
        "layers",
        multiple=True,
        metavar="LAYER=RATIO",
        callback=_layers,
        help="Ratio of one layer, such as features.conv1=25%; again for others.",
    ),
    click.option("--pattern", default="2:4", show_default=True, help="n:m: how many weights of how many stay."),
    click.option(
        "--scope",
        type=options.Choice(["layer", "global"]),
        default="layer",
        show_default=True,
        help="The same ratio in each layer, or one ranking over all.",
    ),
    click.option(
        "--iterations", type=click.IntRange(1, 100), default=1, show_default=True, help="Rounds to spread it over."
    ),
    click.option(
        "--epochs",
        type=options.EPOCHS_OR_NONE,
        default=4,
        show_default=True,
        help="Epochs of fine-tuning a round.",
    ),
    click.option(
        "--soft",
        type=options.SHARE,
        default="0%",
        show_default=True,
        help="Fine-tuning: weight of the whole model's answers (distillation).",
    ),
    click.option(
        "--temperature", type=options.Finite(1, 20), default=2.0, show_default=True, help="Softens those answers."
    ),
)


def step_of(words: dict[str, Any]) -> Any:
    """Return the step that the options mean; raises UsageError on what cannot be."""
    from pydantic import ValidationError

    from toolchain.recipe import Prune
    from toolchain.written import said

    given = any(words[name] is not None for name in ("ratio", "macs", "parameters", "bytes")) or words["layers"]
    if not given and words["method"] != "n:m":
        words = words | {"ratio": 0.25}
    try:
        return Prune.model_validate(words)
    except ValidationError as error:
        first = error.errors()[0]
        where = f"--{first['loc'][0]}: ".replace("layers", "layer") if first["loc"] else ""
        raise click.UsageError(where + said(first)) from error

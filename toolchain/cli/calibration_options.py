"""The options that say where the ranges of a static scheme come from."""

from __future__ import annotations

import rich_click as click

from toolchain.cli import options
from toolchain.cli.options import Command

METHODS = ("min-max", "moving-average", "percentile", "entropy", "mse")

_OPTIONS = (
    click.option(
        "--calibration-images",
        type=click.IntRange(8),
        metavar="COUNT",
        default=512,
        show_default=True,
        help="Of the train split: 8 or more, at least one of each class; fewer where it has no more.",
    ),
    click.option(
        "--calibration",
        type=options.Choice(METHODS),
        default="min-max",
        show_default=True,
        help="How ranges are set.",
    ),
    click.option(
        "--percentile",
        type=options.Finite(50, 100, min_open=True),
        default=99.99,
        show_default=True,
        help="Of all values, kept by --calibration percentile.",
    ),
    click.option("--ranges", metavar="FILE", help="Take them from a file of --save-ranges."),
    click.option("--save-ranges", type=options.FILE, help="Keep them in a file, which `glyphpress ranges` draws."),
    click.option("--bias-correction", is_flag=True, help="Static: mend the mean error of each layer by its bias."),
)


def calibration_options(command: Command) -> Command:
    """Add the options, which are named as in `toolchain.recipe.Quantize`; and `save_ranges`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command

"""The options of a training's settings: a preset or a file, and one option for each setting of it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import rich_click as click

from toolchain.cli import complete, options, values
from toolchain.cli.help_page import PanelOption
from toolchain.cli.options import Command
from toolchain.training.presets import FEW_IMAGES, names
from toolchain.training.settings import DEFAULTS, SETTINGS, Setting

if TYPE_CHECKING:
    from toolchain.training.settings import TrainSettings


@dataclass(frozen=True)
class ChosenSettings:
    """The settings that a command line asks for. changes: values of single settings, None where not given."""

    preset: str | None
    config: Path | None
    changes: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Raise click.UsageError where both a preset and a file are given."""
        if self.preset and self.config:
            raise click.UsageError("--preset and --config exclude each other; give one of them")

    @property
    def sets_batch(self) -> bool:
        """Return whether the batch was chosen, rather than taken from the default preset."""
        return bool(self.preset or self.config or self.changes["batch"])

    def of(self, images: int, model: str) -> TrainSettings:
        """Return the settings for a reference model and that many training images."""
        from toolchain.training import presets

        if self.config:
            settings = presets.read(self.config)
        else:
            settings = presets.preset(self.preset) if self.preset else presets.preset_for(images, model)
        return settings.changed(**self.changes)


def setting_options(command: Command) -> Command:
    """Add `--preset`, `--config` and an option for each setting; the command gets one `chosen: ChosenSettings`."""

    @functools.wraps(command)
    def wrapped(*args: Any, preset: str | None, config: Path | None, **kwargs: Any) -> Any:
        changes = {name: kwargs.pop(name) for name in SETTINGS}
        return command(*args, chosen=ChosenSettings(preset, config, changes), **kwargs)

    panels = dict.fromkeys(setting.panel for setting in SETTINGS.values())
    ordered = [name for panel in panels for name, setting in SETTINGS.items() if setting.panel == panel]
    added = [_PRESET, _CONFIG, *(_option(name, SETTINGS[name]) for name in ordered)]
    return options.with_options(cast(Command, wrapped), added)


_PRESET = click.option(
    "--preset",
    metavar="NAME",
    shell_complete=complete.PRESET,
    help=f"Settings: {', '.join(names())}. Default: the model's own preset, else digits below {FEW_IMAGES:,} images "
    "and emnist from there on.",
)
_CONFIG = click.option(
    "--config",
    type=values.FILE,
    shell_complete=complete.TOML_FILE,
    metavar="FILE.toml",
    help="Settings of your own: a table [train] with keys named like the options that follow, _ for -: held_out = 0.1.",
)


def _option(name: str, setting: Setting) -> Any:
    word = f"--{name.replace('_', '-')}"
    is_switch = isinstance(DEFAULTS[name], bool)
    return click.option(
        f"{word}/--no-{word[2:]}" if is_switch else word,
        cls=PanelOption,
        panel=setting.panel,
        type=None if is_switch else _type(setting, DEFAULTS[name]),
        default=None,
        help=setting.help,
    )


def _type(setting: Setting, default: object) -> click.ParamType[Any]:
    if setting.choices:
        return values.Choice(setting.choices)
    if isinstance(default, int):
        return values.Whole(int(setting.least), int(setting.most))
    return values.Finite(setting.least, setting.most, min_open=setting.above, max_open=setting.below)

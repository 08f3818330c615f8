"""Shell completion: the names that options and arguments take, found without importing anything heavy."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from importlib.resources import files

import rich_click as click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class

Completer = Callable[[click.Context, click.Parameter, str], list["CompletionItem[str]"]]


def _names(names: Callable[[], Iterable[str]], *, or_file: bool) -> Completer:
    """Offer the names that begin so, and files where none does."""

    def complete(_ctx: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem[str]]:
        found = [CompletionItem(name) for name in names() if name.startswith(begun)]
        return found or ([CompletionItem(begun, type="file")] if or_file else [])

    return complete


def _recipes() -> list[str]:
    return sorted(path.name.removesuffix(".toml") for path in (files("toolchain") / "recipe" / "shipped").iterdir())


def _policies() -> list[str]:
    return sorted(path.name.removesuffix(".toml") for path in (files("toolchain") / "policies").iterdir())


def _services() -> Iterable[str]:
    from toolchain.ci import SERVICES

    return SERVICES


def _targets() -> list[str]:
    from targets import catalog, profiles

    return [*catalog.listed(), *profiles.profile_names()]


def _models() -> tuple[str, ...]:
    from toolchain import models

    return models.names()


def _presets() -> Iterable[str]:
    from toolchain.training.settings import PRESETS

    return PRESETS


def _data() -> list[str]:
    from calibration.splits import SPLITS

    return ["builtin:digits", *(f"emnist:{name}" for name in SPLITS)]


RECIPE = _names(_recipes, or_file=True)
POLICY = _names(_policies, or_file=True)
SERVICE = _names(_services, or_file=False)
TARGET = _names(_targets, or_file=False)
MODEL = _names(_models, or_file=False)
PRESET = _names(_presets, or_file=False)
CHECKPOINT = _names(_models, or_file=True)
DATA = _names(_data, or_file=True)


class _Bash(BashComplete):
    """Bash splits words at colons: put `emnist:bal` together again, and answer with what follows its colon."""

    def get_completion_args(self) -> tuple[list[str], str]:
        args, begun = super().get_completion_args()
        if begun == ":":
            args, begun = [*args, begun], ""
        self.before = ""
        if len(args) >= 2 and args[-1] == ":":
            self.before = args[-2] + ":"
            args, begun = args[:-2], self.before + begun
        return args, begun

    def format_completion(self, item: CompletionItem[str]) -> str:
        return f"{item.type},{item.value.removeprefix(self.before)}"


def register() -> None:
    """Let Click use the completion above where the shell asks for one."""
    if "_GLYPHPRESS_COMPLETE" in os.environ:
        add_completion_class(_Bash)

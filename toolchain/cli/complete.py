"""Shell completion: the names that options and arguments take, found without importing anything heavy."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files

import rich_click as click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class

Completer = Callable[[click.Context, click.Parameter, str], list["CompletionItem[str]"]]


CHECKPOINTS = (".pt", ".pth", ".ckpt", ".bin", ".pt2", ".ts", ".safetensors", ".onnx")
"""What a checkpoint's name may end in."""
ARTIFACTS = (".ort", ".tflite")
"""What only `inspect` takes beside them."""


def _names(names: Callable[[], Iterable[str]], *, suffixes: Sequence[str] = (), or_file: bool = False) -> Completer:
    """Offer the names that begin so, and files and folders; where nothing begins so, what the shell itself offers.

    suffixes: of the files to offer. or_file: whether a file or folder may stand in a name's place.
    """

    def complete(_ctx: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem[str]]:
        found = [name for name in names() if name.startswith(begun)]
        inside, below = _entries(begun, suffixes)
        found += inside
        # Folders alone are left to the shell, which goes on in them without a space.
        offered = [CompletionItem(name) for name in (*found, *(below if found and or_file else []))]
        return offered or ([CompletionItem(begun, type="file")] if or_file else [])

    return complete


def _entries(begun: str, suffixes: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the files with such a suffix and the folders that begin so, as they would be typed; no hidden ones."""
    folder, slash, start = begun.rpartition("/")
    try:
        entries = sorted(os.scandir(folder + slash or "."), key=lambda entry: entry.name)
    except OSError:
        return [], []
    seen = [(folder + slash + one.name, one) for one in entries if one.name.startswith(start)]
    shown = [(name, one) for name, one in seen if start or not one.name.startswith(".")]
    return (
        [name for name, one in shown if one.name.endswith(tuple(suffixes)) and one.is_file()],
        [f"{name}/" for name, one in shown if one.is_dir()],
    )


def _recipes() -> list[str]:
    return sorted(path.name.removesuffix(".toml") for path in (files("toolchain") / "recipe" / "shipped").iterdir())


def _policies() -> list[str]:
    return sorted(path.name.removesuffix(".toml") for path in (files("toolchain") / "gate" / "shipped").iterdir())


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


RECIPE = _names(_recipes, suffixes=(".toml",), or_file=True)
POLICY = _names(_policies, suffixes=(".toml",), or_file=True)
SERVICE = _names(_services)
TARGET = _names(_targets)
MODEL = _names(_models)
PRESET = _names(_presets)
CHECKPOINT = _names(_models, suffixes=CHECKPOINTS, or_file=True)
ANY_MODEL = _names(_models, suffixes=(*CHECKPOINTS, *ARTIFACTS), or_file=True)
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
        value = item.value.removeprefix(self.before)
        # What Bash inserts it does not quote, and the script's `read` takes one backslash away.
        quoted = re.sub(r"([^\w@%+=:,./~\[\]-])", r"\\\\\1", value) if item.type == "plain" else value
        return f"{item.type},{quoted}"


def register() -> None:
    """Let Click use the completion above where the shell asks for one."""
    if "_GLYPHPRESS_COMPLETE" in os.environ:
        add_completion_class(_Bash)

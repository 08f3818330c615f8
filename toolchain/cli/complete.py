"""Shell completion: the values of options and arguments, listed without importing anything heavy."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files

import rich_click as click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class

from glyphpress.registry import offered, tell_problems

Completer = Callable[[click.Context, click.Parameter, str], list["CompletionItem[str]"]]


CHECKPOINTS = (".pt", ".pth", ".ckpt", ".bin", ".pt2", ".ts", ".safetensors", ".onnx")
"""The suffixes of checkpoints."""
ARTIFACTS = (".ort", ".tflite")
"""The suffixes of the other model files that `inspect` reads."""


def _names(names: Callable[[], Iterable[str]], *, suffixes: Sequence[str] = (), or_file: bool = False) -> Completer:
    """Return a completer that offers the names, files and folders which begin with the typed text.

    If none does, the shell offers what it finds. suffixes: of the files to offer. or_file: whether a path is a value.
    """

    def complete(_ctx: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem[str]]:
        files, folders = _entries(begun, suffixes)
        matches = [*(name for name in names() if name.startswith(begun)), *files]
        # If only folders match, the shell completes them, since it adds no space after a folder.
        offered = [CompletionItem(name) for name in (*matches, *(folders if matches and or_file else []))]
        return offered or ([CompletionItem(begun, type="file")] if or_file else [])

    return complete


def _entries(begun: str, suffixes: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the files with such a suffix and the folders that begin with the typed text, as they would be typed.

    Hidden ones are left out, unless a dot was typed.
    """
    folder, slash, start = begun.rpartition("/")
    try:
        entries = sorted(os.scandir(folder + slash or "."), key=lambda entry: entry.name)
    except OSError:
        return [], []
    matches = [entry for entry in entries if entry.name.startswith(start) and (start or entry.name[0] != ".")]
    named = [(folder + slash + entry.name, entry) for entry in matches]
    return (
        [name for name, entry in named if name.endswith(tuple(suffixes)) and entry.is_file()],
        [f"{name}/" for name, entry in named if entry.is_dir()],
    )


def _recipes() -> list[str]:
    folder = files("toolchain") / "recipe" / "shipped"
    shipped = sorted(path.name.removesuffix(".toml") for path in folder.iterdir())
    return [*shipped, *offered("recipe", shipped)]


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


def _shipped_models() -> tuple[str, ...]:
    from toolchain import models

    return models.shipped_names()


def _presets() -> Iterable[str]:
    from toolchain.training import presets

    return presets.names()


def _schemas() -> Iterable[str]:
    from toolchain.cli.json_schemas import SCHEMAS

    return SCHEMAS


def _data() -> list[str]:
    from calibration.spec import SPLITS

    return ["builtin:digits", "builtin:digits8x8", *(f"emnist:{name}" for name in SPLITS)]


RECIPE = _names(_recipes, suffixes=(".toml",), or_file=True)
POLICY = _names(_policies, suffixes=(".toml",), or_file=True)
SERVICE = _names(_services)
TARGET = _names(_targets)
MODEL = _names(_models)
SCHEMA = _names(_schemas)
PRESET = _names(_presets)
CHECKPOINT = _names(_shipped_models, suffixes=CHECKPOINTS, or_file=True)
ANY_MODEL = _names(_shipped_models, suffixes=(*CHECKPOINTS, *ARTIFACTS), or_file=True)
READER = _names(_shipped_models, suffixes=(".onnx", *ARTIFACTS), or_file=True)
DATA = _names(_data, or_file=True)
DEPLOYED = _names(lambda: ["ssh://"], suffixes=(".onnx", ".tflite"), or_file=True)
ARTIFACT = _names(tuple, suffixes=(".onnx", *ARTIFACTS), or_file=True)
FLOAT_FILE = _names(tuple, suffixes=(".onnx", ".tflite"), or_file=True)
EVALUATED = _names(tuple, suffixes=(".onnx", *ARTIFACTS, ".npz"), or_file=True)
PICTURE = _names(tuple, suffixes=(".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".webp"), or_file=True)
SAVED_RUN = _names(tuple, suffixes=(".json",), or_file=True)
JSON_FILE = SAVED_RUN
TIMINGS = _names(tuple, suffixes=(".npz",), or_file=True)
TOML_FILE = _names(tuple, suffixes=(".toml",), or_file=True)


def PROFILED(ctx: click.Context, param: click.Parameter, begun: str) -> list[CompletionItem[str]]:  # noqa: N802
    """Offer model files, and as the first word the commands of `profile` too."""
    below = ctx.command.list_commands(ctx) if isinstance(ctx.command, click.Group) else []
    names = [] if ctx.params.get(str(param.name)) else [name for name in below if name.startswith(begun)]
    return [*map(CompletionItem, names), *ARTIFACT(ctx, param, begun)]


class _Bash(BashComplete):
    """Bash splits words at colons, so `emnist:bal` is joined again, and the answer is what follows its colon."""

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
        # Bash does not quote what it inserts, and `read` in the script removes one backslash.
        quoted = re.sub(r"([^\w@%+=:,./~\[\]-])", r"\\\\\1", value) if item.type == "plain" else value
        return f"{item.type},{quoted}"


def register() -> None:
    """Register the completion for Bash if a shell asks for completion."""
    if "_GLYPHPRESS_COMPLETE" in os.environ:
        add_completion_class(_Bash)
        tell_problems(lambda _text: None)  # a warning would stand in the middle of the command line

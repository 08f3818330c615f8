"""Shell completion: the values of options and arguments, listed without importing anything heavy."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files

import rich_click as click
from click.shell_completion import CompletionItem

from glyphpress.registry import offered
from toolchain.cli import complete_inside

Completer = Callable[[click.Context, click.Parameter, str], list["CompletionItem[str]"]]


CHECKPOINTS = (".pt", ".pth", ".ckpt", ".bin", ".pt2", ".ts", ".safetensors", ".onnx")
"""The suffixes of checkpoints."""
ARTIFACTS = (".ort", ".tflite")
"""The suffixes of the other model files that `inspect` reads."""


def _names(names: Callable[[], Iterable[str]], *, suffixes: Sequence[str] = (), or_file: bool = False) -> Completer:
    """Return a completer that offers the names, files and folders which begin with the typed text.

    If none does, the shell offers what it finds. suffixes: of the files to offer. or_file: whether a path is a value.
    """
    return _inside(lambda _ctx, _begun: names(), suffixes=suffixes, or_file=or_file)


def _inside(
    names: Callable[[click.Context, str], Iterable[str]], *, suffixes: Sequence[str] = (), or_file: bool = False
) -> Completer:
    """Return the same for names that depend on the rest of the command line."""

    def complete(ctx: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem[str]]:
        files, folders = _entries(begun, suffixes)
        matches = [*(name for name in _quietly(names, ctx, begun) if name.startswith(begun)), *files]
        # If only folders match, the shell completes them, since it adds no space after a folder.
        offered = [CompletionItem(name) for name in (*matches, *(folders if matches and or_file else []))]
        return offered or ([CompletionItem(begun, type="file")] if or_file else [])

    return complete


def _quietly(names: Callable[[click.Context, str], Iterable[str]], ctx: click.Context, begun: str) -> list[str]:
    """Return the names, or none where they cannot be found: an error would stand in the middle of the typed line."""
    try:
        return list(names(ctx, begun))
    except Exception:  # noqa: BLE001 (a file that is read for names may be damaged in any way)
        return []


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


RECIPE = _names(_recipes, suffixes=(".toml",), or_file=True)
POLICY = _names(_policies, suffixes=(".toml",), or_file=True)
SERVICE = _names(_services)
TARGET = _inside(lambda ctx, begun: [*_targets(), *complete_inside.boards(ctx, begun)])
MODEL = _names(_models)
SCHEMA = _names(_schemas)
PRESET = _names(_presets)
CHECKPOINT = _names(_shipped_models, suffixes=CHECKPOINTS, or_file=True)
ANY_MODEL = _names(_shipped_models, suffixes=(*CHECKPOINTS, *ARTIFACTS), or_file=True)
READER = _names(_shipped_models, suffixes=(".onnx", *ARTIFACTS), or_file=True)
DATA = _inside(complete_inside.data_specs, suffixes=(".csv", ".csv.gz", ".mat", ".parquet"), or_file=True)
CLASSES = _inside(complete_inside.class_choices)
KINDS = _names(lambda: ("0-9", "A-Z", "a-z", "A-Za-z", "0-9A-Za-z"))
MODEL_SOURCE = _inside(lambda ctx, begun: [*_models(), *complete_inside.model_sources(ctx, begun)], or_file=True)
WEIGHTS_KEY = _inside(complete_inside.weight_keys)
PRUNED_LAYER = _inside(complete_inside.layers_to_prune)
FROZEN_LAYER = _inside(complete_inside.layers_to_freeze)
KEPT_LAYER = _inside(complete_inside.layers_to_keep)
PATTERN = _names(lambda: ("2:4", "1:4", "1:2", "4:8"))
HOST = _names(lambda: ("127.0.0.1", "0.0.0.0"))
DEPLOYED = _inside(complete_inside.boards, suffixes=(".onnx", ".tflite"), or_file=True)
ARTIFACT = _names(tuple, suffixes=(".onnx", *ARTIFACTS), or_file=True)
FLOAT_FILE = _names(tuple, suffixes=(".onnx", ".tflite"), or_file=True)
EVALUATED = _names(tuple, suffixes=(".onnx", *ARTIFACTS, ".npz"), or_file=True)
PICTURE = _names(tuple, suffixes=(".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".webp"), or_file=True)
SAVED_RUN = _inside(complete_inside.saved_runs, suffixes=(".json",), or_file=True)
SAVED_COMMIT = _inside(complete_inside.saved_commits)
JSON_FILE = _names(tuple, suffixes=(".json",), or_file=True)
ONNX_FILE = _names(tuple, suffixes=(".onnx",), or_file=True)
TIMINGS = _names(tuple, suffixes=(".npz",), or_file=True)
TOML_FILE = _names(tuple, suffixes=(".toml",), or_file=True)


def PROFILED(ctx: click.Context, param: click.Parameter, begun: str) -> list[CompletionItem[str]]:  # noqa: N802
    """Offer model files, and as the first word the commands of `profile` too."""
    below = ctx.command.list_commands(ctx) if isinstance(ctx.command, click.Group) else []
    names = [] if ctx.params.get(str(param.name)) else [name for name in below if name.startswith(begun)]
    return [*map(CompletionItem, names), *ARTIFACT(ctx, param, begun)]

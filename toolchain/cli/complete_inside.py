"""Names for completion that depend on the rest of the command line: those inside the files that it names.

Each function takes Click's context and the typed text, and returns the values that may follow. What a file raises is
left to the caller.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase, digits
from typing import TYPE_CHECKING

import rich_click as click

if TYPE_CHECKING:
    from calibration.dataset import Split

_MOST_FILES = 30
"""Of a folder, which are opened."""
_MOST_CLASSES = 200
_SPLITS: tuple[Split, ...] = ("train", "test")


def _given(ctx: click.Context, *names: str) -> str | None:
    """Return the value of the first of these parameters that was typed before the word to complete."""
    arguments = [param.name for param in ctx.command.params if isinstance(param, click.Argument)]
    for name in names:
        value = ctx.params.get(name)
        if not value and name in arguments:
            # Where an option lacks its value, Click has assigned no argument.
            value = next(iter(ctx.args[arguments.index(name) :]), None)
        if value:
            return str(value[0] if isinstance(value, tuple) else value)
    return None


def _checkpoint(ctx: click.Context) -> Path | None:
    from toolchain import models

    word = _given(ctx, "checkpoint", "start_file", "file")
    if word in models.shipped_names():
        return models.shipped_weights(str(word))
    return Path(word) if word else None


def weight_keys(ctx: click.Context, _begun: str) -> list[str]:
    """Return the keys of a checkpoint under which weights are."""
    from toolchain.checkpoint.names_inside import weight_keys as keys

    path = _checkpoint(ctx)
    return keys(path) if path else []


def layers_to_prune(ctx: click.Context, begun: str) -> list[str]:
    """Return `LAYER=` for each layer of a checkpoint that can be pruned."""
    return [] if "=" in begun else [f"{name}=" for name in _layers(ctx, matrices=True)]


def layers_to_freeze(ctx: click.Context, _begun: str) -> list[str]:
    """Return the layers of the checkpoint that a training starts from."""
    return _layers(ctx, matrices=False)


def _layers(ctx: click.Context, *, matrices: bool) -> list[str]:
    from toolchain.checkpoint.names_inside import layer_names

    path = _checkpoint(ctx)
    return layer_names(path, _given(ctx, "weights"), matrices=matrices) if path else []


def layers_to_keep(ctx: click.Context, _begun: str) -> list[str]:
    """Return the layers of the model file that is quantized."""
    from toolchain.checkpoint.names_inside import layer_names

    word = _given(ctx, "artifact")
    return layer_names(Path(word)) if word else []


def model_sources(_ctx: click.Context, begun: str) -> Iterator[str]:
    """Return `FILE.py:CLASS` for the classes of a Python file or module, or of those that begin with the typed text."""
    from toolchain.checkpoint.names_inside import classes_in, python_file

    location, colon, _ = begun.rpartition(":")
    if colon:
        path = python_file(location)
        yield from (f"{location}:{name}" for name in (classes_in(path) if path else ()))
        return
    folder, slash, start = begun.rpartition("/")
    files = sorted(path.name for path in Path(folder + slash or ".").glob("[!.]*.py") if path.name.startswith(start))
    for name in files[:_MOST_FILES]:
        try:
            names = classes_in(Path(folder + slash) / name)
        except (OSError, SyntaxError, ValueError):
            continue
        yield from (f"{folder}{slash}{name}:{each}" for each in names)


def class_choices(ctx: click.Context, begun: str) -> list[str]:
    """Return texts that choose classes of `--data`: all, those of one kind, or one more name behind a comma."""
    spec = _given(ctx, "data")
    return _choices(spec, begun) if spec else []


def _choices(spec: str, begun: str) -> list[str]:
    from calibration.spec import classes_text

    classes = _classes_of(spec)
    if any(len(name) > 1 for name in classes):
        before, comma, _ = begun.rpartition(",")
        chosen = before.split(",")
        return [f"{before}{comma}{name}" for name in classes if name not in chosen]
    kinds = [tuple(name for name in classes if name in kind) for kind in (digits, ascii_uppercase, ascii_lowercase)]
    return list(dict.fromkeys(classes_text(each) for each in (classes, *kinds) if each))


def _classes_of(spec: str) -> tuple[str, ...]:
    """Return the classes of EMNIST's splits, of the built-in digits, and of a folder with a subfolder for each."""
    from calibration.spec import SPLITS

    if spec.startswith("builtin:"):
        return tuple(digits)
    before, colon, name = spec.rpartition(":")
    split = SPLITS.get(name.partition("/")[0]) if colon else None
    if split and (before == "emnist" or Path(before).is_dir()):
        return split.classes
    if not Path(spec).is_dir():
        return ()
    return tuple(sorted(path.name for path in _folders(Path(spec)))[:_MOST_CLASSES])


def _folders(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def data_specs(_ctx: click.Context, begun: str) -> list[str]:
    """Return the names of data, the splits of EMNIST whose files a folder holds, and choices of classes in brackets."""
    from calibration.spec import SPLITS

    spec, bracket, typed = begun.partition("[")
    if bracket:
        return [f"{spec}[{choice}]" for choice in _choices(spec, typed.rstrip("]"))]
    names = ["builtin:digits", "builtin:digits8x8", *(f"emnist:{name}" for name in SPLITS)]
    folder, colon, _ = begun.rpartition(":")
    if colon and Path(folder).is_dir():
        from calibration.load import find_split

        roots = [Path(folder)]
        found = (table for table in SPLITS.values() if any(find_split(table, split, roots) for split in _SPLITS))
        names += [f"{folder}:{table.name}" for table in found]
    return names


def boards(_ctx: click.Context, begun: str) -> list[str]:
    """Return `ssh://HOST` for each host of the user's ssh configuration, with the user that was typed."""
    from targets.ssh.configured_hosts import words_of_hosts

    return words_of_hosts(begun)


def saved_runs(_ctx: click.Context, begun: str) -> list[str]:
    """Return the runs that `profile --save` kept in ./profiles, the newest first."""
    return [] if "/" in begun else [str(path) for path in sorted(Path("profiles").glob("[!.]*.json"), reverse=True)]


def saved_commits(ctx: click.Context, _begun: str) -> Iterable[str]:
    """Return the commits of the newest runs in a folder of saved profiles."""
    folder = Path(_given(ctx, "folder") or "profiles")
    commits: dict[str, None] = {}
    for path in sorted(folder.glob("[!.]*.json"), reverse=True)[:_MOST_FILES]:
        try:
            values = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(values, dict) and values.get("commit"):
            commits[str(values["commit"])] = None
    return commits

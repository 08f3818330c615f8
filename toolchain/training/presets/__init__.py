"""Named presets and the user's own files: a TOML table `[train]` with fields of TrainSettings.

A preset named like a reference model is the default of its training.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from targets.errors import nearest, translated
from toolchain.core.errors import PolicyError, UsageProblem
from toolchain.training.settings import TrainSettings

FEW_IMAGES = 10_000
"""Below this number of training images the default preset is `digits`, otherwise `emnist`."""


@cache
def names() -> tuple[str, ...]:
    """Return the name of every preset, sorted."""
    folder = files("toolchain") / "training" / "presets"
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")))


@cache
def preset(name: str) -> TrainSettings:
    """Return a named preset; raises UsageProblem with the nearest names on an unknown one."""
    if name not in names():
        raise UsageProblem(f"no training preset '{name}'; {nearest(name, names(), 'see `glyphpress train --help`')}")
    file = files("toolchain") / "training" / "presets" / f"{name}.toml"
    return parse(file.read_text(encoding="utf-8"), file.name)


def preset_for(images: int, model: str = "") -> TrainSettings:
    """Return the preset of a reference model if it has one, else one by the number of training images.

    Fewer images need smaller batches.
    """
    if model in names():
        return preset(model)
    return preset("digits" if images < FEW_IMAGES else "emnist")


def read(path: Path) -> TrainSettings:
    """Return the settings of a TOML file.

    Raises UsageProblem where there is no such file, and PolicyError that names the file and the first problem.
    """
    return parse(_text(path), str(path))


def table(path: Path) -> dict[str, Any]:
    """Return the table [train] of a TOML file, whose keys are those of any model; raises PolicyError without one."""
    return _table(_text(path), str(path))


def _text(path: Path) -> str:
    if not path.is_file():
        raise UsageProblem(f"{path}: no such file; give a .toml file with a table [train]")
    with translated(lambda reason: PolicyError(f"{path}: not TOML in UTF-8 ({reason}); save it as that")):
        return path.read_text(encoding="utf-8-sig")


def parse(text: str, origin: str) -> TrainSettings:
    """Return the settings of a TOML text; missing keys have their defaults. Raises PolicyError that names `origin`."""
    values = _table(text, origin)
    try:
        return TrainSettings().changed(**values)
    except UsageProblem as error:
        raise PolicyError(f"{origin}: [train] {str(error).replace('`', '')}") from error


def _table(text: str, origin: str) -> dict[str, Any]:
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"{origin}: not TOML: {error}") from error
    for key in tables.keys() - {"train", "summary"}:
        raise PolicyError(f"{origin}: unknown key '{key}'; settings stand in a table [train]")
    if not isinstance(values := tables.get("train"), dict):
        raise PolicyError(f"{origin}: it has no table [train]; write [train], and below it lines such as epochs = 10")
    return values

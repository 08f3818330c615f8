"""Options and quantities that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click

Command = TypeVar("Command", bound=Callable[..., Any])


class Quantity(click.ParamType[float]):
    """A number with its unit, returned in the base unit; a bare number is a usage error that says so."""

    def __init__(self, name: str, units: dict[str, float], example: str) -> None:
        """Take the unit table: suffix to factor."""
        self.name, self.units, self.example = name, units, example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the quantity in base units."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE]-?[0-9]+)?)\s*([A-Za-zµ%]*)\s*", str(value))
        if not match or match[2] not in self.units:
            known = ", ".join(self.units)
            self.fail(f"'{value}' needs a number and a unit ({known}), such as {self.example}", param, ctx)
        return float(match[1]) * self.units[match[2]]


SIZE = Quantity("size", {"B": 1, "KB": 1e3, "MB": 1e6, "KiB": 1024, "MiB": 1024**2}, "250KB")
"""Bytes."""
DURATION = Quantity("time", {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}, "2ms")
"""Seconds."""
POINTS = Quantity("accuracy", {"pp": 0.01, "%": 0.01}, "0.3pp")
"""Fraction of 1."""
RATIO = Quantity("ratio", {"x": 1.0}, "3.6x")

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)


def data_option(command: Command) -> Command:
    """Add `--data` (required) and `--data-root`."""
    command = click.option(
        "--data-root",
        type=FOLDER,
        envvar="GLYPHPRESS_DATA",
        help="Where EMNIST's files are looked for first.",
    )(command)
    return click.option(
        "--data",
        "data",
        required=True,
        metavar="DATA",
        help="builtin:digits, emnist:SPLIT, DIR:SPLIT, or a folder of pictures.",
    )(command)


def json_option(command: Command) -> Command:
    """Add `--json`: exactly one JSON object on stdout."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")(command)


def force_option(command: Command) -> Command:
    """Add `--force`: overwrite what is there."""
    return click.option("--force", is_flag=True, help="Overwrite results that are there.")(command)


def seed_option(command: Command) -> Command:
    """Add `--seed`."""
    return click.option("--seed", type=int, default=0, show_default=True, help="Seed of every random choice.")(command)


def threads_option(default: int) -> Callable[[Command], Command]:
    """Add `--threads` (0: all cores)."""
    return click.option(
        "--threads",
        type=click.IntRange(0),
        default=default,
        show_default=True,
        help="Threads; 0 takes all cores.",
    )


def target_option(command: Command) -> Command:
    """Add `--target`; without it the file's format decides (ort-cpu, litert-cpu)."""
    return click.option(
        "--target",
        metavar="TARGET",
        help="Where it runs; by default ort-cpu for .onnx, litert-cpu for .tflite.",
    )(command)

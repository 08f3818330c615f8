"""Options and quantities that several commands share."""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import rich_click as click

from calibration.choice import class_names, narrowed
from calibration.errors import UnknownData
from targets.errors import nearest
from toolchain.cli import complete, console
from toolchain.core import quantities

Command = TypeVar("Command", bound=Callable[..., Any])


class Quantity(click.ParamType[float]):
    """A number with its unit, returned in the base unit; a bare number is a usage error that says so."""

    def __init__(self, unit: quantities.Unit) -> None:
        """Take the kind of quantity."""
        self.name, self.unit = unit.name, unit

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the quantity in base units."""
        if isinstance(value, float):
            return value
        try:
            return self.unit.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


SIZE = Quantity(quantities.SIZE)
"""Bytes."""
DURATION = Quantity(quantities.DURATION)
"""Seconds."""
POINTS = Quantity(quantities.POINTS)
"""Fraction of 1."""
SHARE = Quantity(quantities.SHARE)
"""Fraction of 1."""
RATIO = Quantity(quantities.RATIO)
COUNT = Quantity(quantities.COUNT)
"""Whole where the step that takes it wants it whole."""


MOST_THREADS = max(64, 4 * (os.cpu_count() or 1))
"""More of them than cores only wait for each other: a thousand open a session for minutes."""
MOST_IMAGES = 65_536
"""In one batch."""
THREADS = click.IntRange(0, MOST_THREADS)
BATCH = click.IntRange(1, MOST_IMAGES)
EPOCHS = click.IntRange(1, 100_000)
EPOCHS_OR_NONE = click.IntRange(0, 100_000)
RUNS = click.IntRange(1, 1_000_000)
SEED = click.IntRange(0, 2**32 - 1)
"""What every generator of random numbers here takes."""


class Finite(click.FloatRange):
    """A finite number between two limits; `click.FloatRange` lets `nan` through."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"'{value}' is not a number", param, ctx)
        return number


class Numbers(click.ParamType[tuple[int, ...]]):
    """Whole numbers between two limits, with commas between them."""

    name = "numbers"

    def __init__(self, most: int = 999_999, *, least: int = 1) -> None:
        """Take the largest and the smallest number that is meant."""
        self.most, self.least = most, least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Return the numbers in their order."""
        if isinstance(value, tuple):
            return value
        if not re.fullmatch(r"[0-9]{1,18}(,[0-9]{1,18})*", str(value)):
            self.fail(f"'{value}' is no list of numbers; write 1,2,4", param, ctx)
        numbers = tuple(int(word) for word in str(value).split(","))
        for number in numbers:
            if not self.least <= number <= self.most:
                self.fail(f"{number} is not in the range {self.least} to {self.most:,}", param, ctx)
        return numbers


class Classes(click.ParamType[tuple[str, ...]]):
    """Names of classes, as characters with ranges or with commas between them."""

    name = "classes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Return the names in their order."""
        if isinstance(value, tuple):
            return value
        try:
            return class_names(str(value))
        except UnknownData as error:
            self.fail(str(error), param, ctx)


class Choice(click.Choice[str]):
    """One of a few names; another is answered with those near to it."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:  # noqa: ARG002 (Click's)
        """Return what is wrong, without every name: the command's help lists them."""
        near = nearest(str(value), self.choices, "")
        return f"'{value}' is not known{near and f'; {near}'}"


THREAD_NUMBERS = Numbers(MOST_THREADS)
BATCH_NUMBERS = Numbers(MOST_IMAGES)
CORES = Numbers(9999, least=0)
"""Numbered from 0."""
CLASSES = Classes()

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)


def data_option(command: Command) -> Command:
    """Add `--data` (required) and `--data-root`."""
    return _data_options(command, required=True)


def optional_data_option(command: Command) -> Command:
    """Add `--data` and `--data-root` where saved evaluations can stand in for the images."""
    return _data_options(command, required=False)


def _data_options(command: Command, *, required: bool) -> Command:
    command = click.option(
        "--data-root",
        type=FOLDER,
        envvar="GLYPHPRESS_DATA",
        help="Folder that is searched first for EMNIST's files.",
    )(command)
    return click.option(
        "--data",
        "data",
        required=required,
        metavar="DATA",
        shell_complete=complete.DATA,
        help="builtin:digits, emnist:SPLIT, DIR:SPLIT, or a folder of pictures; append [A-Z] to choose classes.",
    )(command)


def classes_option(command: Command) -> Command:
    """Add `--classes`, which narrows `--data` as brackets behind it do."""

    @functools.wraps(command)
    def wrapped(*args: Any, classes: tuple[str, ...] | None, data: str | None, **kwargs: Any) -> Any:
        if classes and data is None:
            raise click.UsageError("--classes chooses among the images of --data; give it too")
        return command(*args, data=narrowed(data, classes) if classes and data else data, **kwargs)

    return click.option(
        "--classes",
        type=CLASSES,
        metavar="CLASSES",
        help="Use only these classes, such as 0-9A-Z or cat,dog; the same as DATA[0-9A-Z].",
    )(cast(Command, wrapped))


def data_words(data: str | None, data_root: Path | None) -> list[str]:
    """Return `--data` and `--data-root` as they were given, for a command that is shown."""
    root = ["--data-root", str(data_root)] if data_root else []
    return ["--data", data, *root] if data else []


def json_option(command: Command) -> Command:
    """Add `--json`: exactly one JSON object on stdout."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")(command)


def packed_option(command: Command) -> Command:
    """Add `--packed`: the packed size of large files too, which takes long."""
    text = "Measure the packed size of files over 8 MB too (zstd, level 19, slow)."
    return click.option("--packed", is_flag=True, help=text)(command)


_SEED = click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of every random choice.")
_FORCE = click.option("--force", is_flag=True, help="Overwrite existing results.")


def _threads_option(default: int) -> Callable[[Command], Command]:
    return click.option(
        "--threads", type=THREADS, default=default, show_default=True, help="Number of threads; 0 uses all cores."
    )


def run_options(*, seed: bool = False, threads: int | None = None, force: bool = False) -> Callable[[Command], Command]:
    """Add those of `--seed`, `--threads` and `--force` that a command takes; threads: the default of that option.

    The command gets one `context: RunContext` of them, of `--data-root` if it has that option, and of progress bars.
    """
    added = [_SEED] if seed else []
    added += [_threads_option(threads)] if threads is not None else []
    added += [_FORCE] if force else []

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            from toolchain.core.context import RunContext

            settings = {name: kwargs.pop(name) for name in ("seed", "threads", "force", "data_root") if name in kwargs}
            with console.progress() as progress:
                return command(*args, context=RunContext(progress=progress, **settings), **kwargs)

        return with_options(cast(Command, wrapped), added)

    return decorate


def with_options(command: Command, added: Sequence[Callable[[Command], Command]]) -> Command:
    """Add options to a command, so that its help lists them in this order."""
    for option in reversed(added):
        command = option(command)
    return command


def policy_option(command: Command) -> Command:
    """Add `--policy`: a shipped name or a TOML file."""
    return click.option(
        "--policy",
        "policy_words",
        metavar="POLICY",
        shell_complete=complete.POLICY,
        help="The limits: default, strict, smoke, or a TOML file.",
    )(command)


def target_option(command: Command) -> Command:
    """Add `--target`; without it the file's format decides (ort-cpu, litert-cpu)."""
    return click.option(
        "--target",
        metavar="TARGET",
        shell_complete=complete.TARGET,
        help="Target to run on. Default: ort-cpu for .onnx, litert-cpu for .tflite.",
    )(command)

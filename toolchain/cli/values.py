"""The types of options' values: quantities with units, numbers, names and paths."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

import rich_click as click

from calibration.errors import UnknownData
from calibration.spec import class_names
from targets.errors import nearest
from toolchain.core import quantities


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


class Share(Quantity):
    """A share from 0% to 100%, returned as a fraction of 1. above, below: whether 0% and 100% are out of range."""

    def __init__(self, *, above: bool = False, below: bool = False) -> None:
        """Take what is out of range."""
        super().__init__(quantities.SHARE)
        self.above, self.below = above, below

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the fraction."""
        share = super().convert(value, param, ctx)
        if share > 1 or (self.above and share == 0) or (self.below and share == 1):
            least, most = "more than" if self.above else "at least", "less than" if self.below else "at most"
            self.fail(f"'{value}' is not in the range; give {least} 0% and {most} 100%", param, ctx)
        return share


SIZE = Quantity(quantities.SIZE)
"""Bytes."""
DURATION = Quantity(quantities.DURATION)
"""Seconds."""
POINTS = Quantity(quantities.POINTS)
"""Fraction of 1."""
SHARE = Share()
SHARE_ABOVE_NONE = Share(above=True)
PROPER_SHARE = Share(above=True, below=True)
"""Neither nothing nor all."""
RATIO = Quantity(quantities.RATIO)
COUNT = Quantity(quantities.COUNT)
"""Whole where the step that takes it wants it whole."""


class Whole(click.IntRange):
    """A whole number between two limits; to `click.IntRange`, 2.5 "is not a valid integer range"."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number."""
        least, most = self.min or 0, math.inf if self.max is None else self.max
        limits = f"from {least:,} {'on' if self.max is None else f'to {most:,}'}"
        try:
            number = int(value)
        except ValueError:
            self.fail(f"'{value}' is no whole number; give one {limits}", param, ctx)
        if not least <= number <= most:
            self.fail(f"{number} is not in the range; give a whole number {limits}", param, ctx)
        return number


class Finite(click.FloatRange):
    """A finite number between two limits; `click.FloatRange` lets `nan` through."""

    def __init__(self, least: float, most: float, *, min_open: bool = False, max_open: bool = False) -> None:
        """Take the limits. min_open, max_open: whether the limit itself is out of range."""
        super().__init__(least, most, min_open=min_open, max_open=max_open)
        self._limits = f"{'above' if min_open else 'from'} {least:g} {'to below' if max_open else 'to'} {most:g}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            self.fail(f"'{value}' is not a number; give one {self._limits}", param, ctx)
        try:
            return super().convert(number, param, ctx)
        except click.BadParameter:
            self.fail(f"{value} is not in the range; give a number {self._limits}", param, ctx)


MOST_THREADS = max(64, 4 * (os.cpu_count() or 1))
"""More of them than cores only wait for each other: a thousand open a session for minutes."""
MOST_IMAGES = 65_536
"""The most images in a batch."""
THREADS = Whole(0, MOST_THREADS)
BATCH = Whole(1, MOST_IMAGES)
EPOCHS = Whole(1, 100_000)
EPOCHS_OR_NONE = Whole(0, 100_000)
RUNS = Whole(1, 1_000_000)
SEED = Whole(0, 2**32 - 1)
"""What every generator of random numbers here takes."""


class Numbers(click.ParamType[tuple[int, ...]]):
    """Whole numbers between two limits, with commas between them."""

    name = "numbers"

    def __init__(self, most: int = 999_999, *, least: int = 1) -> None:
        """Take the largest and the smallest number that is allowed."""
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


class Output(click.Path):
    """A file or folder to write; `-` is refused, since no command writes files to stdout.

    replaced: whether a new folder takes the place of an old one, with all that is in it.
    """

    def __init__(self, *, dir_okay: bool = True, file_okay: bool = True, replaced: bool = False) -> None:
        """Take whether a folder and whether a file may be written."""
        super().__init__(path_type=Path, dir_okay=dir_okay, file_okay=file_okay)
        self.replaced = replaced

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        if str(value) == "-":
            self.fail("'-' does not mean stdout here; give a name (./- is a file of that name)", param, ctx)
        return super().convert(value, param, ctx)


THREAD_NUMBERS = Numbers(MOST_THREADS)
BATCH_NUMBERS = Numbers(MOST_IMAGES)
CORES = Numbers(9999, least=0)
"""Numbered from 0."""
CLASSES = Classes()

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
OUTPUT_FILE = Output(dir_okay=False)
OUTPUT_FOLDER = Output(file_okay=False)
REPLACED_FOLDER = Output(file_okay=False, replaced=True)

"""Quantities with units: sizes, times, accuracies and ratios, as people read and write them.

A number without a unit is refused everywhere: `0.3` could be a fraction, a percentage or percentage points.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_NUMBER = "[0-9]*\\.?[0-9]+(?:[eE][+-]?[0-9]+)?"
_FORM = re.compile(rf"\s*({_NUMBER})\s*([A-Za-zµ%]*)\s*")


@dataclass(frozen=True)
class Unit:
    """A kind of quantity. units: suffix -> factor to base units. plain: the suffix that `text` writes."""

    name: str
    units: Mapping[str, float]
    example: str
    plain: str

    @property
    def pattern(self) -> str:
        """The form that `parse` accepts, as an ECMA 262 regular expression for a JSON schema."""
        return rf"^\s*{_NUMBER}\s*({'|'.join(self.units)})\s*$"

    def parse(self, text: str) -> float:
        """Parse a quantity to base units; raises ValueError that says what was expected."""
        match = _FORM.fullmatch(text)
        if text.lstrip().startswith("-"):
            raise ValueError(f"'{text}' is below zero; give one such as {self.example}")
        if not match or match[2] not in self.units:
            known = ", ".join(unit or "or none" for unit in self.units)
            raise ValueError(f"'{text}' needs a number and a unit ({known}), such as {self.example}")
        value = float(match[1]) * self.units[match[2]]
        if not math.isfinite(value):
            raise ValueError(f"'{text}' is too large; give one such as {self.example}")
        return value

    def text(self, value: float) -> str:
        """Return a value in base units as text that `parse` reads back to twelve digits."""
        return f"{value / self.units[self.plain]:.12g}{self.plain}"


SIZE = Unit(
    "size", {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}, "250KB", "KB"
)
"""Bytes."""
DURATION = Unit("time", {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}, "2ms", "us")
"""Seconds."""
POINTS = Unit("accuracy", {"pp": 0.01, "%": 0.01}, "0.3pp", "pp")
"""Fraction of 1, of a difference or a small share."""
ACCURACY = Unit("accuracy", POINTS.units, "85%", "%")
"""Fraction of 1, of all images."""
SHARE = Unit("share", {"%": 0.01}, "25%", "%")
"""Fraction of 1."""
RATIO = Unit("ratio", {"x": 1.0}, "3.6x", "x")
COUNT = Unit("count", {"k": 1e3, "M": 1e6, "": 1.0}, "3M", "")
"""A number of things, which needs no unit."""


def counted(count: float, noun: str, plural: str = "") -> str:
    """Return a number and what it counts: `1 file`, `8 files`."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def size_text(size: float) -> str:
    """Return bytes for people: `163 KB`."""
    if size < 1e3:
        return counted(round(size), "byte")
    if size < 1e4:
        return f"{size / 1e3:.1f} KB"
    return f"{size / 1e3:,.0f} KB" if size < 1e7 else f"{size / 1e6:.1f} MB"


def macs_text(macs: float) -> str:
    """Return multiply-accumulates for people in the unit that leaves digits to read: `38.5 kMAC`, `8.0 MMAC`."""
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        # A value that would round to 1,000 of a unit is written in the next one.
        if macs >= 0.99995 * factor:
            return f"{macs / factor:,.1f} {unit}MAC"
    return f"{macs:,.0f} MAC"


def time_text(seconds: float) -> str:
    """Return a time for people in three digits: `67.2 us`, `1.05 ms`."""
    for unit, factor in (("ns", 1e-9), ("us", 1e-6), ("ms", 1e-3)):
        if seconds < 999.5 * factor:
            return f"{seconds / factor:#.3g}".rstrip(".") + f" {unit}"
    return f"{seconds:.2f} s"


def duration_text(seconds: float) -> str:
    """Return how long something takes, for people: `4.2 s`, `40 s`, `12 min`, `1 h 05 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def percent_text(fraction: float, digits: int = 2) -> str:
    """Return a share for people: `88.46 %`."""
    return f"{fraction:.{digits}%}".replace("%", " %")


def sure_text(confidence: float) -> str:
    """Return a confidence for people: `95 %`; with as many digits as keep it below 100 %, which it never is."""
    digits = next((digits for digits in range(4, 17) if float(f"{confidence * 100:.{digits}g}") < 100), 17)
    return f"{confidence * 100:.{digits}g} %"


def points_text(fraction: float, digits: int = 2) -> str:
    """Return a difference of shares in percentage points, without the unit: `0.03`; never `-0.00`."""
    return f"{round(fraction * 100, digits) + 0.0:.{digits}f}"


def beside(value: float, limit: float, text: Callable[[float, int], str], digits: int = 2) -> str:
    """Return a value that is shown beside a limit, with as many more digits as distinguish the two."""
    while value != limit and digits < 12 and text(value, digits) == text(limit, digits):
        digits += 1
    return text(value, digits)


def size_beside(size: float, limit: float) -> str:
    """Return a size that is shown beside a limit: in bytes where `size_text` would give the same for both."""
    same = size != limit and size_text(size) == size_text(limit)
    return f"{size:,.15g} bytes" if same else size_text(size)


def time_beside(seconds: float, limit: float) -> str:
    """Return a time that is shown beside a limit: in nanoseconds where `time_text` would give the same for both."""
    same = seconds != limit and time_text(seconds) == time_text(limit)
    return f"{seconds * 1e9:,.12g} ns" if same else time_text(seconds)

"""Texts of values beside ticks and marks: as short as the value allows, with the unit."""

from __future__ import annotations

from collections.abc import Sequence


def size_tick(size: float) -> str:
    """Return bytes: `40 KB`, `1.5 MB`."""
    return _scaled(size, ((1e9, " GB"), (1e6, " MB"), (1e3, " KB"), (1, " bytes")))


def time_tick(ns: float) -> str:
    """Return nanoseconds: `50 us`, `1.5 ms`."""
    return "0" if not ns else _scaled(ns, ((1e9, " s"), (1e6, " ms"), (1e3, " us"), (1, " ns")))


def count_tick(count: float) -> str:
    """Return a number of instructions or images: `400 k`, `1.5 M`."""
    return _scaled(count, ((1e9, " G"), (1e6, " M"), (1e3, " k"), (1, "")))


def ratio_tick(ratio: float) -> str:
    """Return a ratio: `0.5 x`."""
    return f"{ratio:g} x"


def points_tick(points: float) -> str:
    """Return percentage points with their sign: `+0.5`, `0`, `-2`."""
    return f"{points:+g}" if points else "0"


def percent_tick(share: float) -> str:
    """Return a share: `50 %`."""
    return f"{share * 100:g} %"


def listed(texts: Sequence[str], most: int = 3) -> str:
    """Return the first texts, and how many more there are: `a, b and 4 more`."""
    shown = ", ".join(texts[:most])
    return f"{shown} and {len(texts) - most:,} more" if len(texts) > most else shown


def _scaled(value: float, units: Sequence[tuple[float, str]]) -> str:
    factor, unit = next((pair for pair in units if abs(value) >= 0.9995 * pair[0]), units[-1])
    return f"{value / factor:.3g}{unit}"

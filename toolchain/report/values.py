"""What a limit measures, as people write it: points, bytes, seconds, ratios or counts."""

from __future__ import annotations

from toolchain.core.quantities import points_text, size_text, time_text
from toolchain.gate.limit import Measure
from toolchain.gate.limits import definition

DASH = "-"


def value_text(limit: str, value: float | None) -> str:
    """Return a verdict's value with its unit; a dash for None."""
    return DASH if value is None else _text(definition(limit).settings.measure, value)


def allowed_text(limit: str, threshold: float) -> str:
    """Return what a limit allows: `at most 0.300 pp`."""
    least = "min" in definition(limit).settings.model_fields
    return f"{'at least' if least else 'at most'} {value_text(limit, threshold)}"


def _text(measure: Measure, value: float) -> str:
    if measure == "bytes":
        return size_text(value)
    if measure == "seconds":
        return time_text(value)
    if measure == "ratio":
        return f"{value:.3g}x"
    return f"{value:,.0f}" if measure == "count" else f"{points_text(value, 3)} pp"

"""What a limit measures, as people write it: points, bytes, seconds, ratios or counts."""

from __future__ import annotations

from functools import cache
from typing import get_args

from toolchain.gate.limit import Limit, Measure
from toolchain.gate.policy import Policy
from toolchain.quantities import points_text, size_text, time_text

DASH = "-"


@cache
def limits() -> dict[str, type[Limit]]:
    """Return the table of every limit that a policy can hold, by name, in the policy's order."""
    kinds = {name: get_args(field.annotation)[0] for name, field in Policy.model_fields.items()}
    return {name: kind for name, kind in kinds.items() if issubclass(kind, Limit)}


def value_text(limit: str, value: float | None) -> str:
    """Return a verdict's value with its unit; a dash for None."""
    return DASH if value is None else _text(limits()[limit].measure, value)


def allowed_text(limit: str, threshold: float) -> str:
    """Return what a limit allows: `at most 0.300 pp`."""
    least = "min" in limits()[limit].model_fields
    return f"{'at least' if least else 'at most'} {value_text(limit, threshold)}"


def _text(measure: Measure, value: float) -> str:
    if measure == "bytes":
        return size_text(value)
    if measure == "seconds":
        return time_text(value)
    if measure == "ratio":
        return f"{value:.3g}x"
    return f"{value:,.0f}" if measure == "count" else f"{points_text(value, 3)} pp"

"""The limits of a policy, a module each: the settings, the evidence, how it is collected, and how it is judged."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from toolchain.gate.limit import LimitDefinition

LIMITS = {
    "drop": "toolchain.gate.limits.drop:DROP",
    "classes": "toolchain.gate.limits.classes:CLASSES",
    "confusables": "toolchain.gate.limits.confusables:CONFUSABLES",
    "cost": "toolchain.gate.limits.confusables:COST",
    "flips": "toolchain.gate.limits.flips:FLIPS",
    "rejects": "toolchain.gate.limits.confidence:REJECTS",
    "ece": "toolchain.gate.limits.confidence:ECE",
    "stress": "toolchain.gate.limits.stress:STRESS",
    "runtimes": "toolchain.gate.limits.runtimes:RUNTIMES",
    "preprocess": "toolchain.gate.limits.preprocess:PREPROCESS",
    "leaks": "toolchain.gate.limits.leaks:LEAKS",
    "size": "toolchain.gate.limits.sizes:SIZE",
    "packed": "toolchain.gate.limits.sizes:PACKED",
    "shrink": "toolchain.gate.limits.sizes:SHRINK",
    "memory": "toolchain.gate.limits.memory:MEMORY",
    "p50": "toolchain.gate.limits.speed:P50",
    "p95": "toolchain.gate.limits.speed:P95",
    "p50_ratio": "toolchain.gate.limits.speed:P50_RATIO",
    "p95_ratio": "toolchain.gate.limits.speed:P95_RATIO",
}
"""Every limit, in the order in which policies, templates and verdicts have them."""


@cache
def definition(name: str) -> LimitDefinition:
    """Return what the gate knows of a limit; raises KeyError where there is none of this name."""
    module, _, constant = LIMITS[name].partition(":")
    loaded = getattr(import_module(module), constant)
    assert isinstance(loaded, LimitDefinition)
    return loaded


def definitions() -> dict[str, LimitDefinition]:
    """Return every limit by its name, in order."""
    return {name: definition(name) for name in LIMITS}

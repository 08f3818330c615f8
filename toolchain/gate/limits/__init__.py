"""The limits of a policy, a module each: the settings, the evidence, how it is collected, and how it is judged."""

from __future__ import annotations

from functools import cache
from typing import Any

from glyphpress.registry import Registry, instance
from toolchain.gate.limit import Limit, LimitDefinition

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

PARTS = ("pairs", "rows", "files", "timings", "baseline_timings")
"""The evidence that limits of plug-ins can be judged by, beside what they collect under their own name."""
_RESERVED = ("baseline", "baseline_digest", "collected", "flipped", "places", "plugins", *PARTS)
"""What else is called so in a policy or in evidence."""


def _limit(name: str, value: Any) -> LimitDefinition:
    """Return what a plug-in gives; raises TypeError and ValueError where no policy could hold it."""
    limit = instance(LimitDefinition)(name, value)
    if not name.isidentifier() or not issubclass(limit.settings, Limit):
        raise TypeError(f"[{name}] needs a name without -, and settings that are a Limit")
    parts = (name, *PARTS) if limit.collect else PARTS
    if unknown := [part for part in limit.evidence if part not in parts]:
        raise ValueError(f"no {unknown[0]} is collected for it, only {', '.join(parts)}")
    if limit.collect and limit.evidence[:1] != (name,):
        raise ValueError(f"it collects, so that its evidence must begin with {name}")
    if limit.always:
        raise ValueError("only a policy asks for a limit of a plug-in, so that `always` cannot be")
    return limit


REGISTRY = Registry("limit", lambda: LIMITS, _limit, lambda: _RESERVED)
"""Those of LIMITS, and those of plug-ins, of which a gate imports only what its policy names."""


@cache
def definition(name: str) -> LimitDefinition:
    """Return what the gate knows of a limit; raises KeyError where there is none of this name."""
    return REGISTRY.get(name)


def definitions() -> dict[str, LimitDefinition]:
    """Return every limit of LIMITS by its name, in order."""
    return {name: definition(name) for name in LIMITS}

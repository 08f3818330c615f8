"""What disturbed a run, and whether that can explain a slowdown.

The time in which others had the core is left out of every sample, so other work lengthens a file's time only by what
cores share: caches, memory, frequency and, with hyper-threading, the core itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from targets.session import Timings

BUSY_SLOWER = 1.5
"""Lower bound of a ratio that other work does not explain where the earlier runs had as much of it."""
_MORE = 1.1
"""So much more other work counts as the same."""
_WORK = re.compile("other processes|the system gave|load|governor")
"""Begins the taints whose effect is known; how much heat, a falling frequency or a low voltage slow down is not."""


@dataclass(frozen=True)
class Disturbance:
    """What disturbed a run. kinds: its `taints` without their numbers; cores: that others kept busy, 0 if not known."""

    kinds: tuple[str, ...]
    cores: float

    @classmethod
    def of(cls, timings: Timings) -> Disturbance:
        """Return what disturbed these timings."""
        kinds = dict.fromkeys(re.sub(r"[\d.]+", "", taint).replace("cores", "core") for taint in timings.taints)
        return cls(tuple(kinds), round(timings.busy_cores, 2))


def is_explained(low: float, before: Sequence[Disturbance], after: Sequence[Disturbance]) -> bool:
    """Return whether what disturbed the later runs can explain that they are at least `low` times as slow.

    It cannot where nothing disturbed them: what disturbed the earlier ones made the ratio smaller. Nor where the ratio
    is above BUSY_SLOWER, and the earlier runs were disturbed in the same ways and by as much other work.
    """
    kinds = {kind for each in after for kind in each.kinds}
    if not kinds:
        return False
    if low <= BUSY_SLOWER or not before or not all(map(_WORK.match, kinds)):
        return True
    if not kinds <= {kind for each in before for kind in each.kinds}:
        return True
    return max(each.cores for each in after) > _MORE * max(each.cores for each in before)

"""One operator of an artifact and the time that it takes, as every runtime's profiler reports it."""

from __future__ import annotations

from dataclasses import dataclass

WARMUP, RUNS = 20, 200


@dataclass(frozen=True)
class Operator:
    """One operator in the order of execution.

    kernel: what the runtime calls it. layer: the layer of the file that it computes, empty for one that the runtime put
    in. ns: nanoseconds of an inference, of `RUNS` after `WARMUP` (`typical_ns`). Profilers count whole microseconds.
    """

    kernel: str
    layer: str
    ns: float


def typical_ns(microseconds: list[int]) -> float:
    """Return the mean of the middle three fifths in nanoseconds, so that others at work do not decide."""
    ranked, cut = sorted(microseconds), len(microseconds) // 5
    middle = ranked[cut : len(ranked) - cut]
    return sum(middle) / len(middle) * 1000

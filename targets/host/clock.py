"""The timing loop of sessions: monotonic clock, warm-up, calibrated inner loop, raw nanoseconds."""

from __future__ import annotations

import gc
import resource
from collections.abc import Callable
from time import perf_counter_ns, thread_time_ns

import numpy as np
from numpy.typing import NDArray

from targets.session import TimingPlan

Interrupted = tuple[tuple[int, int], ...]
"""Index of each sample during which the system gave the core to other processes, and for how many nanoseconds."""

PROFILE_WARMUP, PROFILE_RUNS = 20, 200
"""Inferences of a per-operator profile: first untimed ones, then timed ones."""

RESOLUTIONS = 100
"""A calibrated sample takes at least this many times the clock's resolution."""


def clock_resolution_ns() -> int:
    """Return the clock's step in nanoseconds: the greatest common divisor of measured steps.

    Measured, since the clock of a browser or a virtual machine may be far coarser than it reports.
    """
    readings: list[int] = []
    while len(readings) < 200:
        now = perf_counter_ns()
        if not readings or now != readings[-1]:
            readings.append(now)
    return int(np.gcd.reduce(np.diff(readings)))


def calibrated_inner(once: Callable[[], object], resolution_ns: int) -> int:
    """Return how many calls of `once` take at least 100 clock resolutions; 1 except for the smallest models."""
    inner = 1
    while True:
        shortest = min(_sample(once, inner) for _ in range(3))
        if shortest >= RESOLUTIONS * resolution_ns:
            return inner
        inner *= 2


def time_calls(once: Callable[[], object], plan: TimingPlan) -> tuple[NDArray[np.int64], int, Interrupted]:
    """Return nanoseconds per call of `once`, int64 [N] in order, the calls per sample, and the interruptions.

    `plan.min_runs` and `plan.max_runs` count samples. Python's garbage collector is off during the measurement. A
    sample of several calls is their mean, rounded down to a nanosecond. Interruptions are those of the calling thread,
    known on Linux only.
    """
    for _ in range(plan.warmup):
        once()
    gc_was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        inner = plan.inner or calibrated_inner(once, clock_resolution_ns())
        samples, interrupted = _collect(once, plan, inner)
    finally:
        if gc_was_on:
            gc.enable()
    shares = tuple((index, away // inner) for index, away in interrupted)
    return np.array(samples, dtype=np.int64) // inner, inner, shares


def _collect(once: Callable[[], object], plan: TimingPlan, inner: int) -> tuple[list[int], list[tuple[int, int]]]:
    samples: list[int] = []
    interrupted: list[tuple[int, int]] = []
    until = perf_counter_ns() + int(plan.min_seconds * 1e9)
    switches, cpu_ns = _thread()
    while len(samples) < plan.max_runs:
        took = _sample(once, inner)
        before, (switches, cpu_ns) = (switches, cpu_ns), _thread()
        # At least a nanosecond per call must remain.
        away = min(took - (cpu_ns - before[1]), took - inner)
        if switches > before[0] and away >= inner:
            interrupted.append((len(samples), away))
        samples.append(took)
        if len(samples) >= plan.min_runs and perf_counter_ns() >= until:
            break
    return samples, interrupted


def _thread() -> tuple[int, int]:
    """Return the involuntary context switches of this thread, and its CPU time in nanoseconds."""
    who = getattr(resource, "RUSAGE_THREAD", None)
    return (0, 0) if who is None else (resource.getrusage(who).ru_nivcsw, thread_time_ns())


def _sample(once: Callable[[], object], inner: int) -> int:
    if inner == 1:
        start = perf_counter_ns()
        once()
        return perf_counter_ns() - start
    start = perf_counter_ns()
    for _ in range(inner):
        once()
    return perf_counter_ns() - start


def typical_ns(microseconds: list[int]) -> float:
    """Return the mean of the middle three fifths in nanoseconds, which interruptions hardly change."""
    ranked, cut = sorted(microseconds), len(microseconds) // 5
    middle = ranked[cut : len(ranked) - cut]
    return sum(middle) / len(middle) * 1000

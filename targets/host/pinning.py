"""On which cores of this machine a measurement runs (sched_setaffinity(2))."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from targets.errors import RunFailed


def pin(cores: Collection[int]) -> None:
    """Keep this thread, and all threads and processes that it starts from now on, on some cores, numbered from 0.

    Raises RunFailed where a core is not there, or not for this process, or the system pins nothing.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise RunFailed("this system pins no process to cores; measure on Linux, or without --pin")
    usable = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, cores)
    except (OSError, ValueError) as error:
        named, there = (", ".join(map(str, sorted(some))) for some in (cores, usable))
        raise RunFailed(f"cannot run on core {named} ({error}); this process may take {there}") from error
    missing = set(cores) - os.sched_getaffinity(0)
    if missing:  # Linux takes those that exist and says nothing
        os.sched_setaffinity(0, usable)
        named, there = (", ".join(map(str, sorted(some))) for some in (missing, usable))
        raise RunFailed(f"there is no core {named}; this process may take {there}")


@contextmanager
def pinned(cores: Collection[int]) -> Iterator[None]:
    """Pin while a block runs; without cores leave everything as it is."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    pin(cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)

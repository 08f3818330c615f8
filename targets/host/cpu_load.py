"""CPU load of other processes: all CPU time of this machine, less that of this process and its children (proc(5))."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

QUIET = 0.25
"""Cores that other processes may keep busy on a quiet machine; a tenth of the machine where that is more."""
COUNTERS = ("work_s", "own_s", "clock_s")
"""What `cpu_seconds` returns: seconds whose differences say something, and which alone say nothing."""


def cpu_seconds(root: Path = Path("/")) -> dict[str, float]:
    """Return `work_s`, processor seconds of all since the machine started, `own_s` of those ours, and `clock_s`.

    What a hypervisor gave to other machines counts as worked by others. Empty where /proc does not tell.
    """
    lines = _text(root / "proc/stat").splitlines()
    if not lines or not lines[0].startswith("cpu "):
        return {}
    user, nice, system, _idle, _wait, irq, softirq, steal, *_ = map(int, lines[0].split()[1:])
    ticks = os.sysconf("SC_CLK_TCK")
    everybody = (user + nice + system + irq + softirq + steal) / ticks
    return {"work_s": everybody, "own_s": _own(root) / ticks, "clock_s": monotonic()}


def quiet_cores(cores: int) -> float:
    """Return how many of the cores others may keep busy on a quiet machine."""
    return max(QUIET, cores / 10)


def busy_by_others(before: Mapping[str, Any], after: Mapping[str, Any]) -> float | None:
    """Return how many cores others kept busy between two answers of `cpu_seconds`; None where they do not tell."""
    if not {*COUNTERS} <= before.keys() & after.keys():
        return None
    worked, own, passed = (after[name] - before[name] for name in COUNTERS)
    return max(0.0, (worked - own) / passed) if passed > 0 else None


def _own(root: Path) -> int:
    """Return the ticks of this process and its descendants, those that ended and were waited for included."""
    parents, ticks = dict[int, int](), dict[int, int]()
    for process, parent, used in _processes(root):
        parents[process], ticks[process] = parent, used
    return sum(used for process, used in ticks.items() if os.getpid() in _ancestry(process, parents))


def _ancestry(process: int, parents: Mapping[int, int]) -> Iterator[int]:
    """Yield a process, its parent, and so on."""
    while process in parents:
        yield process
        process = parents[process]


def _processes(root: Path) -> Iterator[tuple[int, int, int]]:
    """Yield number, parent and ticks of every process."""
    for folder in (root / "proc").glob("[0-9]*"):
        with suppress(IndexError, ValueError):  # it has just ended
            # The name, in parentheses, may hold anything.
            fields = _text(folder / "stat").rpartition(")")[2].split()
            yield int(folder.name), int(fields[1]), sum(map(int, fields[11:15]))


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(errors="replace")
    return ""

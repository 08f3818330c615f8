"""LocalTarget: the base of this machine's targets, and what fresh processes measure of them.

A process that has run a model before has already paid for the runtime's own start (thread pools, kernel tables, code
pages). So cold start, peak memory and operators are measured by an agent in a new process, which only opens the
artifact. Importing Python packages is not measured.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Collection
from contextlib import closing, suppress
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Protocol

from targets.agent import Answer, Header, local_agent
from targets.artifact import Artifact, Facts, Format
from targets.catalog import REGISTRY, TARGETS, get
from targets.errors import ConnectionLost, RunFailed, TargetError, TargetUnavailable
from targets.host.machine import machine_state
from targets.session import ColdStart, Operator, TimingPlan
from targets.target import Availability, Target

LIMIT_S = 120
"""Seconds that one measurement may take."""
REPEATS = 3
"""Processes whose median is the peak memory of a file."""
_ONE_RUN = TimingPlan(warmup=0, min_runs=1, max_runs=1, min_seconds=0, inner=1)


class MemoryRise:
    """How far a process's resident memory rises above what is resident when this is made (man 5 proc)."""

    def __init__(self, process: str = "self") -> None:
        """Take a process by its number; raises RunFailed where the system does not report its memory."""
        self._process = Path("/proc", process)
        # Where this is not allowed an earlier peak stays: the rise is then too large, never too small.
        with suppress(OSError):
            (self._process / "clear_refs").write_text("5")
        self._before = self._resident("VmRSS")

    def bytes(self) -> int:
        """Return the peak since then less what was resident then."""
        return self._resident("VmHWM") - self._before

    def _resident(self, name: str) -> int:
        with suppress(OSError):
            for line in (self._process / "status").read_text().splitlines():
                if line.startswith(f"{name}:"):
                    return int(line.split()[1]) * 1024
        raise RunFailed(f"this system does not report a process's {name}; measure memory on Linux")


def cold_start_of(answer: Answer) -> ColdStart:
    """Return the cold start in an agent's answer."""
    return ColdStart(answer.value("load_ns", int), answer.value("first_run_ns", int))


def operators(artifact: Artifact, target: Target, *, threads: int = 1, batch: int = 1) -> list[Operator]:
    """Return the operators of an inference of `batch` images on a target of this machine, with their times.

    Raises RunFailed where the target has no profiler, or the process fails.
    """
    if not target.has_profiler:
        others = " or ".join(_with_profiler(artifact.format))
        raise RunFailed(f"{target.name} does not report the time of its operators; take {others}")
    answer = in_fresh_process(artifact, target.name, "operators", threads=threads, batch=batch)
    with answer.checked():
        return [Operator(**operator) for operator in answer.value("operators", list)]


def _with_profiler(kind: Format) -> list[str]:
    """Return the targets whose runtime has a profiler and runs that format."""
    targets = (get(name) for name in TARGETS)
    return [target.name for target in targets if target.has_profiler and kind in target.formats]


def in_fresh_process(artifact: Artifact, target: str, measurement: str, **settings: int) -> Answer:
    """Return the answer of a fresh process to a measurement (a key of `MEASUREMENTS`); raises RunFailed."""
    path = str(artifact.path.resolve())
    fields: Facts = {"target": target, "path": path, "facts": artifact.facts(), "settings": settings}
    try:
        with closing(local_agent(f"{artifact.path}, in a fresh process")) as agent:
            return agent.request("measure", limit_s=LIMIT_S, measurement=measurement, **fields)
    except ConnectionLost as error:
        raise RunFailed(f"{artifact.path}: a fresh process could not open it: {error.reason}") from error
    except TargetError as error:
        raise RunFailed(str(error)) from error


def measure(artifact: Artifact, target: str, measurement: str, settings: dict[str, int]) -> Header:
    """Take a measurement in this process, which must be a fresh one; returns JSON types."""
    opener = get(target)
    opener.probe()  # imports the runtime, which is not part of loading a file
    return MEASUREMENTS[measurement](opener, artifact, **settings)


def _start(target: Target, artifact: Artifact, threads: int) -> Header:
    with target.open(artifact, threads=threads) as session:
        timings = session.time(_ONE_RUN)
    return asdict(ColdStart(timings.load_ns, timings.first_run_ns))


def _memory(target: Target, artifact: Artifact, threads: int) -> Header:
    if any(spec.dtype != "float32" for spec in (*artifact.inputs, *artifact.outputs)):
        with suppress(ImportError):
            import_module("onnx")  # it reads the scales of integer inputs, which is not part of the session
    gc.collect()
    _trim_heap()
    rise = MemoryRise()
    with target.open(artifact, threads=threads):  # includes the first inference
        return {"peak_bytes": rise.bytes()}


def _operators(target: Target, artifact: Artifact, threads: int, batch: int) -> Header:
    return {"operators": [asdict(operator) for operator in target.operators(artifact, threads=threads, batch=batch)]}


MEASUREMENTS: dict[str, Callable[..., Header]] = {"start": _start, "memory": _memory, "operators": _operators}


def _trim_heap() -> None:
    """Give the free parts of the heap back to the system (glibc), so that a session cannot use them uncounted."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class LocalTarget(Target, Protocol):
    """A target of this machine: `require` checks what it needs; fresh processes measure cold start and memory."""

    def require(self) -> None:
        """Raise TargetUnavailable with the first thing that is missing; opens no device and loads no file."""
        ...

    def probe(self) -> Availability:
        """See `Target.probe`."""
        try:
            self.require()
        except TargetUnavailable as error:
            return Availability(False, error.reason, error.fix)
        return Availability(True)

    def isa(self) -> Collection[str]:
        """Return this machine's flags where the runtime chooses its kernels by them."""
        return tuple(machine_state().get("isa", ())) if self.default_kernels else ()

    def cold_start(self, artifact: Artifact, *, threads: int = 1) -> ColdStart | None:
        """See `Target.cold_start`; None for a target that is not in the catalog: no other process can open it."""
        if self.name.split(",")[0] not in REGISTRY:
            return None
        return cold_start_of(in_fresh_process(artifact, self.name, "start", threads=threads))

    def peak_memory(self, artifact: Artifact, *, threads: int = 1) -> int:
        """See `Target.peak_memory`: the median of three processes, which differ by some pages.

        The peak of resident memory (VmHWM) less what was resident before (VmRSS), with the runtime imported already and
        the free parts of the heap given back. It includes the first inference, the weights as they are stored in the
        file and as they are packed, the arena of activations, the thread pool, and the pages of the runtime's own code
        and tables that are touched for the first time. Those are the larger part for a small file: 8 to 9 MB in ONNX
        Runtime, 3 to 5 in LiteRT. Raises RunFailed when the process fails or cannot tell.
        """
        answers = [in_fresh_process(artifact, self.name, "memory", threads=threads) for _ in range(REPEATS)]
        return int(median(answer.value("peak_bytes", int) for answer in answers))

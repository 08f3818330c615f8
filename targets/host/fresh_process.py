"""Cold start: what loading an artifact and its very first inference take in a process that has done nothing else.

In a process that already runs a model, the runtime's own start (thread pools, kernel tables, code pages) is paid and
gone; so the session is opened, and times or weighs itself, in a fresh interpreter. Importing Python packages is not
part of it.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

from targets.artifact import Artifact, Format, from_facts
from targets.catalog import TARGETS, get
from targets.errors import RunFailed
from targets.session import ColdStart, Operator, TimingPlan
from targets.target import Target

SECONDS = 120
REPEATS = 3
_ONCE = TimingPlan(warmup=0, min_runs=1, max_runs=1, min_seconds=0, inner=1)


class MemoryRise:
    """How far a process's resident memory rises above what is resident when this is made (man 5 proc)."""

    def __init__(self, process: str = "self") -> None:
        """Take a process by its number; raises RunFailed where the system does not tell its memory."""
        self._process = Path("/proc", process)
        # Where that is not allowed an earlier peak stays in it: what is told is then too much, never too little.
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


def cold_start(artifact: Artifact, target: str, *, threads: int = 1) -> ColdStart:
    """Open the artifact on a target of the catalog in a fresh process; raises RunFailed when that process fails."""
    answer = in_fresh_process(artifact, target, "start", threads=threads)
    return ColdStart(answer["load_ns"], answer["first_run_ns"])


def peak_memory(artifact: Artifact, target: str, *, threads: int = 1) -> int:
    """Return by how many bytes opening the artifact and a first inference raise a fresh process's resident memory.

    The peak of what was resident (VmHWM) less what was before (VmRSS), the runtime being imported already and the
    free parts of the heap given back; the median of three processes, which differ by some pages. It holds the weights
    as they lie in the file and as they are packed, the arena of activations, the thread pool, and those pages of the
    runtime's own code and tables that are touched for the first time, which are the larger part for a small file: 8
    to 9 MB in ONNX Runtime, 3 to 5 in LiteRT. Raises RunFailed when the process fails or cannot say.
    """
    return int(
        median(in_fresh_process(artifact, target, "memory", threads=threads)["peak_bytes"] for _ in range(REPEATS))
    )


def in_fresh_process(artifact: Artifact, target: str, measure: str, **settings: int) -> Any:
    """Return what a fresh process measured: `start`, `memory` or `operators`; raises RunFailed when it fails."""
    errand = {"path": str(artifact.path.resolve()), "facts": artifact.facts(), "target": target, "settings": settings}
    home = str(Path(__file__).parents[2])
    known = os.environ.get("PYTHONPATH")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([home, known] if known else [home])}
    command = [sys.executable, "-m", "targets.host.fresh_process"]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(errand | {"measure": measure}),
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            timeout=SECONDS,
            check=True,
        )
        return json.loads(done.stdout)
    except subprocess.TimeoutExpired as error:
        raise RunFailed(f"{artifact.path}: not ready after {SECONDS} s in a fresh process; run it alone") from error
    except (subprocess.CalledProcessError, ValueError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1:]
        ours = re.match(r"targets\.errors\.\w+: (.*)", " ".join(said))
        raise RunFailed(
            ours[1] if ours else f"{artifact.path}: a fresh process could not open it: {' '.join(said)}"
        ) from error


def _answer() -> None:
    """Be the fresh process: an errand on stdin, its numbers on stdout."""
    errand = json.load(sys.stdin)
    artifact = from_facts(Path(errand["path"]), errand["facts"])
    place = get(errand["target"])
    place.probe()  # imports the runtime, which is not part of loading a file
    print(json.dumps(_MEASURES[errand["measure"]](place, artifact, **errand["settings"])))


def _timed(place: Target, artifact: Artifact, threads: int) -> dict[str, int]:
    with place.open(artifact, threads=threads) as session:
        timings = session.time(_ONCE)
    return {"load_ns": timings.load_ns, "first_run_ns": timings.first_run_ns}


def _weighed(place: Target, artifact: Artifact, threads: int) -> dict[str, int]:
    if any(spec.dtype != "float32" for spec in (*artifact.inputs, *artifact.outputs)):
        with suppress(ImportError):
            import_module("onnx")  # reads the scales of integer inputs: ours, not the session's
    gc.collect()
    _give_back()
    rise = MemoryRise()
    with place.open(artifact, threads=threads):  # the first inference is part of it
        return {"peak_bytes": rise.bytes()}


def _profiled(place: Target, artifact: Artifact, threads: int, batch: int) -> list[dict[str, Any]]:
    return [asdict(one) for one in place.operators(artifact, threads=threads, batch=batch)]


_MEASURES: dict[str, Callable[..., Any]] = {"start": _timed, "memory": _weighed, "operators": _profiled}


def _give_back() -> None:
    """Give the free parts of the heap back (glibc), so that what the imports left there is not used unseen."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


if __name__ == "__main__":
    _answer()


def operators(artifact: Artifact, target: Target, *, threads: int = 1, batch: int = 1) -> list[Operator]:
    """Return the operators of an inference of `batch` images on a target of this machine, in a fresh process.

    Raises RunFailed where the target has no profiler, or that process fails.
    """
    if not target.has_profiler:
        fit = " or ".join(_with_profiler(artifact.format))
        raise RunFailed(f"{target.name} does not report the time of its operators; take {fit}")
    answer = in_fresh_process(artifact, target.name, "operators", threads=threads, batch=batch)
    return [Operator(**one) for one in answer]


def _with_profiler(kind: Format) -> list[str]:
    """Return the targets whose runtime has a profiler and runs that format."""
    targets = (get(name) for name in TARGETS)
    return [target.name for target in targets if target.has_profiler and kind in target.formats]

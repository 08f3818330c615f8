"""Cold start: what loading an artifact and its very first inference take in a process that has done nothing else.

In a process that already runs a model, the runtime's own start (thread pools, kernel tables) is paid and gone; so the
session is opened, and times itself, in a fresh interpreter. Importing Python packages is not part of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from targets.artifact import Artifact, from_facts
from targets.catalog import get
from targets.errors import RunFailed
from targets.target import TimingPlan

SECONDS = 120
_ONCE = TimingPlan(warmup=0, min_runs=1, max_runs=1, min_seconds=0, inner=1)


@dataclass(frozen=True)
class ColdStart:
    """Nanoseconds, of one fresh process."""

    load_ns: int
    first_run_ns: int


def cold_start(artifact: Artifact, target: str, *, threads: int = 1) -> ColdStart:
    """Open the artifact on a target of the catalog in a fresh process; raises RunFailed when that process fails."""
    errand = {"path": str(artifact.path.resolve()), "facts": artifact.facts(), "target": target, "threads": threads}
    home = str(Path(__file__).parents[1])
    known = os.environ.get("PYTHONPATH")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([home, known] if known else [home])}
    command = [sys.executable, "-m", "targets.cold"]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(errand),
            capture_output=True,
            text=True,
            env=environment,
            timeout=SECONDS,
            check=True,
        )
        return ColdStart(**json.loads(done.stdout))
    except subprocess.TimeoutExpired as error:
        raise RunFailed(f"{artifact.path}: not ready after {SECONDS} s in a fresh process; run it alone") from error
    except (subprocess.CalledProcessError, ValueError, TypeError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1:]
        raise RunFailed(f"{artifact.path}: a fresh process could not open it: {' '.join(said)}") from error


def peak_memory(artifact: Artifact, target: str, *, threads: int = 1) -> int:
    """Return by how many bytes opening the artifact and a first inference raise a fresh process's resident memory.

    The peak, with the runtime imported already; raises RunFailed when the process fails or cannot say.
    """
    raise NotImplementedError


def _answer() -> None:
    """Be the fresh process: an errand on stdin, two numbers on stdout."""
    errand = json.load(sys.stdin)
    artifact = from_facts(Path(errand["path"]), errand["facts"])
    place = get(errand["target"])
    place.probe()  # imports the runtime, which is not part of loading a file
    with place.open(artifact, threads=errand["threads"]) as session:
        timings = session.time(_ONCE)
    print(json.dumps({"load_ns": timings.load_ns, "first_run_ns": timings.first_run_ns}))


if __name__ == "__main__":
    _answer()

"""What each operator of an artifact takes, by the runtime's own profiler, joined to the layers of the file."""

from __future__ import annotations

from targets.artifact import Artifact, Format
from targets.catalog import TARGETS, get
from targets.errors import RunFailed
from targets.host.fresh_process import in_fresh_process
from targets.operator_time import Operator
from targets.target import Target


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

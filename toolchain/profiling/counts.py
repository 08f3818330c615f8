"""Instructions per inference, where a processor is emulated."""

from __future__ import annotations

from collections.abc import Sequence

from targets.artifact import Artifact
from targets.target import Instructions, Target
from toolchain.progress import Progress, silent

RUNS = 5


def counted(
    artifacts: Sequence[Artifact], target: Target, *, runs: int = RUNS, batch: int = 1, progress: Progress = silent
) -> list[Instructions]:
    """Count every artifact on an emulated target, `runs` inferences each; raises as opening and `Session.count` do."""
    counts = []
    for done, artifact in enumerate(artifacts, 1):
        with target.open(artifact) as session:
            counts.append(session.count(runs=runs, batch=batch))
        progress(f"counting on {target.name}", done, len(artifacts))
    return counts

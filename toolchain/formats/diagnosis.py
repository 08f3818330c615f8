"""Diagnosis: why a file is slow, from the kernels that its runtime takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property

from targets import catalog
from targets.artifact import Artifact
from targets.errors import RunFailed
from targets.host.fresh_process import operators
from targets.session import Operator


class Diagnosis:
    """What a format finds out about one file; the file is opened when it is first asked for, and once."""

    def __init__(self, artifact: Artifact) -> None:
        """Take the file."""
        self.artifact = artifact

    @cached_property
    def operators(self) -> Sequence[Operator]:
        """What the usual runtime runs of the file, with the time of each; empty where it is built without profiler."""
        try:
            return operators(self.artifact, catalog.default_for(self.artifact.format))
        except RunFailed:
            return ()

    def reasons(self, base: Artifact) -> list[str]:  # noqa: ARG002 (of every format)
        """Return why it may be slower than `base`, a line each; raises RunFailed where the runtime refuses a file."""
        return []

    def computes_in_int8(self) -> bool:
        """Return whether layers multiply int8 by int8, rather than only store it."""
        return False

    def time_share(self, some: Sequence[Operator]) -> str:
        """Return `12% of the time`, the share that some of the operators take."""
        return f"{sum(one.ns for one in some) / max(1.0, sum(one.ns for one in self.operators)):.0%} of the time"


def listed(kinds: Counter[str]) -> str:
    """Return `Conv (2), Gemm (1)`."""
    return ", ".join(f"{kind} ({count})" for kind, count in kinds.most_common())

"""LocalTarget: what the targets of this machine have in common. Another process of it can open them by their name."""

from __future__ import annotations

from typing import Protocol

from targets.artifact import Artifact
from targets.catalog import TARGETS
from targets.host.fresh_process import cold_start, peak_memory
from targets.session import ColdStart
from targets.target import Target


class LocalTarget(Target, Protocol):
    """A target whose cold start and memory are measured in a fresh process of this machine."""

    def cold_start(self, artifact: Artifact, *, threads: int = 1) -> ColdStart | None:
        """See `Target.cold_start`; None for a target that is not in the catalog, which no other process can find."""
        known = self.name.split(",")[0] in TARGETS
        return cold_start(artifact, self.name, threads=threads) if known else None

    def peak_memory(self, artifact: Artifact, *, threads: int = 1) -> int:
        """See `Target.peak_memory`."""
        return peak_memory(artifact, self.name, threads=threads)

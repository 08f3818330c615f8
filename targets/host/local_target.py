"""LocalTarget: what the targets of this machine have in common."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from targets.artifact import Artifact
from targets.catalog import TARGETS
from targets.errors import TargetUnavailable
from targets.host.fresh_process import cold_start, peak_memory
from targets.host.machine import machine_state
from targets.session import ColdStart
from targets.target import Availability, Target


class LocalTarget(Target, Protocol):
    """A target of this machine: it says what it requires; fresh processes measure its cold start and memory."""

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
        known = self.name.split(",")[0] in TARGETS
        return cold_start(artifact, self.name, threads=threads) if known else None

    def peak_memory(self, artifact: Artifact, *, threads: int = 1) -> int:
        """See `Target.peak_memory`."""
        return peak_memory(artifact, self.name, threads=threads)

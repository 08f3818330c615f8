"""Measurements: what every artifact costs on every target that takes it, or why that is not known."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from targets.artifact import Artifact
from targets.session import Instructions, RuntimeFacts, TimingPlan, Timings
from toolchain.evaluation.ratio import SLOWER, LatencyRatio
from toolchain.evaluation.timings_file import save_timings
from toolchain.profiling.agreement import Agreement
from toolchain.profiling.latency import PERCENTILES


@dataclass(frozen=True, eq=False)
class MeasuredFile:
    """One artifact on one target.

    There are timings where the target has a latency, instructions where it is emulated, an agreement where it is not
    the default target of the format. Ratios are to the first artifact in the same runtime there. packed: the
    file's bytes once packed, None where that was not measured. refused: why there is nothing; missing: whether that is
    because the target is not here. larger: whether the file is larger than that first artifact's. reasons: why it is
    larger or slower.
    """

    artifact: Artifact
    target: str
    facts: RuntimeFacts | None = None
    timings: Timings | None = None
    ratio: LatencyRatio | None = None
    ratio_p95: LatencyRatio | None = None
    instructions: Instructions | None = None
    instructions_ratio: float | None = None
    agreement: Agreement | None = None
    peak_bytes: int | None = None
    packed: int | None = None
    refused: str = ""
    missing: bool = False
    larger: bool = False
    reasons: tuple[str, ...] = ()

    @property
    def slower(self) -> bool:
        """Whether it is shown to take more than 2 % longer, or more instructions, than the first artifact."""
        if self.instructions_ratio is not None:
            return self.instructions_ratio > SLOWER
        return bool(self.timed and self.ratio and self.ratio.slower)

    @property
    def timed(self) -> Timings | None:
        """The timings of a device; None for those of a script, which are no latency."""
        return self.timings if self.facts and self.facts.cost == "latency" else None

    def percentiles(self) -> dict[str, float | None]:
        """Return nanoseconds by name (p50 ... p99.9), None where there are none or too few to carry it."""
        return {f"p{q:g}": self.timings.percentile(q) if self.timings else None for q in PERCENTILES}

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the samples as JSON types; times in nanoseconds."""
        timings, facts = self.timings, self.facts
        known: dict[str, Any] = {
            "artifact": self.artifact.path.name,
            "sha256": self.artifact.sha256,
            "bytes": self.artifact.size,
            "packed": self.packed,
            "target": self.target,
            "facts": asdict(facts) if facts else None,
            "cost": facts.cost if facts else None,
            "refused": self.refused,
            "missing": self.missing,
            "agreement": asdict(self.agreement) | {"match": self.agreement.match} if self.agreement else None,
            "instructions": self.instructions.to_dict() if self.instructions else None,
            "instructions_ratio": self.instructions_ratio,
            "peak_bytes": self.peak_bytes,
            "ratio": asdict(self.ratio) if self.ratio else None,
            "ratio_p95": asdict(self.ratio_p95) if self.ratio_p95 else None,
            "slower": self.slower,
            "larger": self.larger,
            "reasons": list(self.reasons),
        }
        if timings:
            known |= {name: getattr(timings, name) for name in ("batch", "inner", "warmup", "load_ns", "first_run_ns")}
            known |= {"samples": len(timings.samples_ns), "machine": timings.machine}
            known |= {"percentiles_ns": self.percentiles()}
        return known


@dataclass(frozen=True, eq=False)
class Measurements:
    """The files in the order of the targets, and how they were measured. taints: what made the run less than quiet."""

    files: tuple[MeasuredFile, ...]
    plan: TimingPlan
    threads: int
    rounds: int
    seed: int
    taints: tuple[str, ...] = ()
    machine: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the samples as JSON types."""
        settings = {name: getattr(self, name) for name in ("threads", "rounds", "seed", "machine")}
        rows = [file.to_dict() for file in self.files]
        return {"rows": rows, "plan": asdict(self.plan), "taints": list(self.taints)} | settings

    def save_samples(self, path: Path, *, force: bool = False) -> None:
        """Write the raw nanoseconds (`toolchain.evaluation.timings_file`)."""
        save_timings(path, self.to_dict(), [file.timings for file in self.files], force=force)

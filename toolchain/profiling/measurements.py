"""Measurements: the costs of every artifact on every target that takes it, their agreement, and reasons for a cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.load import load
from targets import catalog
from targets.artifact import Artifact
from targets.host.machine import multiplies_bytes
from targets.session import Instructions, RuntimeFacts, Session, TimingPlan, Timings
from targets.target import Target
from toolchain.core.errors import UsageProblem
from toolchain.core.json_codec import json_types
from toolchain.evaluation.timings import SLOWER, LatencyRatio, save_timings
from toolchain.formats import catalog as formats
from toolchain.formats.graph import Diagnosis
from toolchain.profiling.latency import timed_facts


@dataclass(frozen=True, eq=False)
class MeasuredFile:
    """One artifact on one target.

    It has timings if the target has a latency, instructions if it is emulated, and an agreement if it is not the
    default target of the format. Ratios are to the first artifact in the same runtime on the same target. packed: the
    file's packed bytes, None if not measured. refused: why there is no measurement; missing: whether the reason is that
    the target is unavailable. larger: whether the file is larger than the first artifact. reasons: why it is larger or
    slower.
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
        """The timings of a device; None for those of a script, which are not a latency."""
        return self.timings if self.facts and self.facts.cost == "latency" else None

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the samples as JSON types; times in nanoseconds."""
        known: dict[str, Any] = {
            "artifact": self.artifact.path.name,
            "sha256": self.artifact.sha256,
            "bytes": self.artifact.size,
            "packed": self.packed,
            "target": self.target,
            "facts": self.facts,
            "cost": self.facts.cost if self.facts else None,
            "refused": self.refused,
            "missing": self.missing,
            "agreement": asdict(self.agreement) | {"match": self.agreement.match} if self.agreement else None,
            "instructions": self.instructions.to_dict() if self.instructions else None,
            "instructions_ratio": self.instructions_ratio,
            "peak_bytes": self.peak_bytes,
            "ratio": self.ratio,
            "ratio_p95": self.ratio_p95,
            "slower": self.slower,
            "larger": self.larger,
            "reasons": self.reasons,
        }
        return json_types(known | (timed_facts(self.timings) if self.timings else {}))


@dataclass(frozen=True, eq=False)
class Measurements:
    """The files in the order of the targets, and the settings. taints: the reasons why the machine was not quiet."""

    files: tuple[MeasuredFile, ...]
    plan: TimingPlan
    threads: int
    rounds: int
    seed: int
    taints: tuple[str, ...] = ()
    machine: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the samples as JSON types."""
        names = ("plan", "taints", "threads", "rounds", "seed", "machine")
        settings = {name: getattr(self, name) for name in names}
        return json_types({"rows": [file.to_dict() for file in self.files]} | settings)

    def save_samples(self, path: Path, *, force: bool = False) -> None:
        """Write the raw nanoseconds (`toolchain.evaluation.timings`)."""
        save_timings(path, self.to_dict(), [file.timings for file in self.files], force=force)


IMAGES = 64
"""Built-in digits to compare answers on: enough to exercise every logit, few enough for an emulated processor."""
TOLERANCE = 1e-4
"""Largest difference of logits that another order of float32 sums explains, as a share of the largest logit or 1."""


@dataclass(frozen=True)
class Agreement:
    """Answers of two targets to the same images: how many differ, and the largest difference of a logit.

    reference: the target that is compared with. scale: its largest logit.
    """

    reference: str
    images: int
    differing: int
    largest: float
    scale: float

    @property
    def match(self) -> bool:
        """Whether all answers are the same, and logits differ only by rounding."""
        return not self.differing and self.largest <= TOLERANCE * max(1.0, self.scale)

    def __str__(self) -> str:
        """Return one line for people."""
        if not self.largest:
            return "outputs match to the bit"
        if self.match:
            return f"outputs match ({self.largest:.0e})"
        if not self.differing:
            return f"same answers, logits differ by {self.largest:.2g}"
        return f"OUTPUTS DIFFER: {self.differing} of {self.images} answers"


def agreement(answering: Session, reference: Session, images: NDArray[np.uint8] | None = None) -> Agreement:
    """Compare two sessions of one file on images, by default built-in digits; raises RunFailed as they do."""
    images = load("builtin:digits", "test").images[:IMAGES] if images is None else images
    expected, answered = reference.run(images), answering.run(images)
    differing = int((expected.argmax(axis=1) != answered.argmax(axis=1)).sum())
    largest = float(np.abs(expected - answered).max())
    return Agreement(reference.facts.target, len(images), differing, largest, float(np.abs(expected).max()))


UNSEEN = "the graph shows no reason; `glyphpress profile --per-op` shows the time of each operator"


def reasons_for(artifact: Artifact, base: Artifact, target: Target, *, slower: bool, larger: bool) -> tuple[str, ...]:
    """Return why an artifact is slower on a target, or larger, than `base`: one line for each reason.

    They come from the graphs that the runtime of this machine makes. Raises RunFailed if it refuses a file.
    """
    file_format = formats.get(artifact.format)
    diagnosis = file_format.diagnosis(artifact)
    reasons: list[str] = []
    if slower:
        by_graph = diagnosis.reasons(base) if target.default_kernels else []
        reasons += [*by_graph, *_without_instructions(diagnosis, target)] or [UNSEEN + _slowest(diagnosis, target)]
    if larger:
        reasons.append(file_format.size_reason(artifact.path))
    return tuple(reasons)


def _without_instructions(diagnosis: Diagnosis, target: Target) -> Iterator[str]:
    """Yield a reason if the target's processor is known to lack the instructions for int8 products."""
    flags = target.isa()
    if not flags or multiplies_bytes(flags) or not diagnosis.computes_in_int8():
        return
    missing = "dot-product instructions (asimddp)" if "asimd" in flags else "VNNI"
    yield (
        f"the processor has no {missing}: each product of bytes takes several instructions, where float takes one; "
        "weight-int8 is as small and runs like float"
    )


def _slowest(diagnosis: Diagnosis, target: Target) -> str:
    """Return the slowest operator, as text after UNSEEN, if a runtime of this machine measured it."""
    if target.name != catalog.default_for(diagnosis.artifact.format).name or not diagnosis.operators:
        return ""
    slowest = max(diagnosis.operators, key=lambda operator: operator.ns)
    layer = f" of {slowest.layer}" if slowest.layer else ""
    return f"; the slowest is {slowest.kernel}{layer}, {diagnosis.time_share([slowest])}"


def paired(artifacts: Sequence[Artifact], names: Sequence[str]) -> list[tuple[Target, Artifact]]:
    """Return every pair of an artifact and a target that takes it, in the order of the targets.

    names: of targets; without any, each artifact gets the default target of its format. Raises UnknownTarget, and
    UsageProblem if a target takes none of the artifacts or an artifact has no target.
    """
    if not artifacts:
        raise UsageProblem("nothing to profile; name at least one artifact")
    if not names:
        return [(catalog.default_for(artifact.format), artifact) for artifact in artifacts]
    targets = [catalog.get(name) for name in dict.fromkeys(names)]
    for target in targets:
        if not any(artifact.format in target.formats for artifact in artifacts):
            takes = " or ".join(f".{kind}" for kind in sorted(target.formats))
            raise UsageProblem(f"{target.name} does not run {artifacts[0].path.name}; it takes {takes}")
    for artifact in artifacts:
        if not any(artifact.format in target.formats for target in targets):
            default = catalog.default_for(artifact.format).name
            raise UsageProblem(f"no --target runs {artifact.path.name}; add --target {default}")
    return [(target, artifact) for target in targets for artifact in artifacts if artifact.format in target.formats]

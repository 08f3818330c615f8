"""Reasons: why a pressed file is slower or larger than another one, found in the graph that its runtime makes of it."""

from __future__ import annotations

from collections.abc import Iterator

from targets import catalog
from targets.artifact import Artifact
from targets.host.machine import multiplies_bytes
from targets.target import Target
from toolchain.formats import catalog as formats
from toolchain.formats.graph import Diagnosis

UNSEEN = "the graph shows no reason; `glyphpress profile --per-op` tells what each operator takes"


def reasons_for(artifact: Artifact, base: Artifact, target: Target, *, slower: bool, larger: bool) -> tuple[str, ...]:
    """Return why an artifact is slower on a target, or larger, than `base`, one reason per line; none for neither.

    Graphs are taken as this machine's runtime makes them. Raises RunFailed where it refuses a file.
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
    """Yield that the processor has no instructions for what an int8 file does, where that is known of it."""
    flags = target.isa()
    if not flags or multiplies_bytes(flags) or not diagnosis.computes_in_int8():
        return
    missing = "dot-product instructions (asimddp)" if "asimd" in flags else "VNNI"
    yield (
        f"the processor has no {missing}: each product of bytes takes several instructions, where float takes one; "
        "weight-int8 is as small and runs like float"
    )


def _slowest(diagnosis: Diagnosis, target: Target) -> str:
    """Return the operator that takes most of the time, where this machine's runtimes tell it."""
    if target.name != catalog.default_for(diagnosis.artifact.format).name or not diagnosis.operators:
        return ""
    most = max(diagnosis.operators, key=lambda operator: operator.ns)
    return f"; most is {most.kernel}{f' of {most.layer}' if most.layer else ''}, {diagnosis.time_share([most])}"

"""Pairs: which artifact is profiled in which place."""

from __future__ import annotations

from collections.abc import Sequence

from targets import catalog
from targets.artifact import Artifact
from targets.target import Target
from toolchain.core.errors import UsageProblem


def paired(artifacts: Sequence[Artifact], words: Sequence[str]) -> list[tuple[Target, Artifact]]:
    """Return every artifact in every place that takes it, in the order of the places; without words each format's own.

    Raises UsageProblem where an artifact or a place finds no other, and UnknownTarget.
    """
    if not artifacts:
        raise UsageProblem("nothing to profile; name at least one artifact")
    if not words:
        return [(catalog.default_for(artifact.format), artifact) for artifact in artifacts]
    places = [catalog.get(word) for word in dict.fromkeys(words)]
    for place in places:
        if not any(artifact.format in place.formats for artifact in artifacts):
            takes = " or ".join(f".{kind}" for kind in sorted(place.formats))
            raise UsageProblem(f"{place.name} does not run {artifacts[0].path.name}; it takes {takes}")
    for artifact in artifacts:
        if not any(artifact.format in place.formats for place in places):
            fit = catalog.DEFAULTS[artifact.format]
            raise UsageProblem(f"no --target runs {artifact.path.name}; add --target {fit}")
    return [(place, artifact) for place in places for artifact in artifacts if artifact.format in place.formats]

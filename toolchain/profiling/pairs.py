"""Pairs: which artifact is profiled on which target."""

from __future__ import annotations

from collections.abc import Sequence

from targets import catalog
from targets.artifact import Artifact
from targets.target import Target
from toolchain.core.errors import UsageProblem


def paired(artifacts: Sequence[Artifact], names: Sequence[str]) -> list[tuple[Target, Artifact]]:
    """Return every artifact with every target that takes it, in the order of the targets.

    names: of targets; without any, each artifact goes with the default target of its format. Raises UsageProblem where
    a target takes none of the artifacts or an artifact has no target, and UnknownTarget.
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
            fit = catalog.DEFAULTS[artifact.format]
            raise UsageProblem(f"no --target runs {artifact.path.name}; add --target {fit}")
    return [(target, artifact) for target in targets for artifact in artifacts if artifact.format in target.formats]

"""Everything that can go wrong where an artifact runs.

TargetError
├── UnknownTarget       no such target name (usage)
├── TargetUnavailable   the target, or an optional package it needs, is not here: reason and fix
├── ArtifactError       a file that is no artifact, or whose sidecar does not belong to it
└── RunFailed           the runtime refused the file or answered with NaN, a wrong shape or a wrong type
"""


class TargetError(Exception):
    """Root of the errors of `targets`; the message is one line that ends with what to do."""


class UnknownTarget(TargetError):
    """A target name that is not in the catalog."""


class TargetUnavailable(TargetError):
    """The target cannot run here; carries the reason and the fix."""


class ArtifactError(TargetError):
    """A file that cannot be read as an artifact, or a sidecar of another file."""


class RunFailed(TargetError):
    """The runtime could not load or run the artifact, or its answer is unusable."""

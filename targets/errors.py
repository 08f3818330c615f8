"""Everything that can go wrong where an artifact runs.

TargetError
├── UnknownTarget       no such target name (usage)
├── TargetUnavailable   the target, or an optional package it needs, is not here: reason and fix
├── ArtifactError       a file that is no artifact, or whose sidecar does not belong to it
└── RunFailed           the runtime refused the file or answered with NaN, a wrong shape or a wrong type
    ├── Misplaced       a node would run elsewhere than on the device that was asked for; says which
    └── ConnectionLost  the place that ran the artifact went away in the middle; says how to go on
"""


class TargetError(Exception):
    """Root of the errors of `targets`; the message is one line that ends with what to do."""


class UnknownTarget(TargetError):
    """A target name that is not in the catalog."""


class TargetUnavailable(TargetError):
    """The target cannot run here; carries the reason and the fix."""

    def __init__(self, reason: str, fix: str = "") -> None:
        """Take both, or one line that says both."""
        super().__init__("; ".join(filter(None, (reason, fix))))
        self.reason, self.fix = reason, fix


class ArtifactError(TargetError):
    """A file that cannot be read as an artifact, or a sidecar of another file."""


class RunFailed(TargetError):
    """The runtime could not load or run the artifact, or its answer is unusable."""


class Misplaced(RunFailed):
    """At least one node would run on another device than the one asked for."""


class ConnectionLost(RunFailed):
    """The link to the place where the artifact ran broke; nothing is left running there."""

"""The contract of a target: a runtime, board or emulator that runs artifacts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from targets.artifact import Artifact, Format
from targets.errors import RunFailed, UnknownTarget
from targets.host.machine import pin
from targets.session import ColdStart, Cost, Instructions, Operator, Session

Progress = Callable[[str, int, int], None]
"""Called during long work with a label, the number of steps that are done, and the number of all steps."""


def silent(_label: str, _done: int, _total: int) -> None:
    """Show no progress."""


@dataclass(frozen=True)
class Availability:
    """Whether a target can run here; if not, the reason and how to fix it."""

    ok: bool
    reason: str = ""
    fix: str = ""


class Target(Protocol):
    """A runtime, board or emulator that runs artifacts; code elsewhere never looks at its name or class.

    Targets derive from this class and override what differs from the defaults, which fit a device of this machine.
    name: its name with its settings (`ort-cpu,graph=basic`). settings: the values of each setting, the default first.
    members: what may follow the colon in the name of a family. default_kernels: whether ONNX Runtime and LiteRT run
    as they ship, on the CPU, so that this machine's runtimes show how they run a file there. has_profiler: whether
    `operators` works.
    """

    name: str
    formats: frozenset[Format]
    settings: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    members: ClassVar[tuple[str, ...]] = ()
    default_kernels: ClassVar[bool] = False
    has_profiler: ClassVar[bool] = False

    def probe(self) -> Availability:
        """Return whether it can be used, without raising; takes at most a second where no network is needed."""
        ...

    def open(self, artifact: Artifact, *, threads: int = 1) -> Session:
        """Load the artifact. Raises TargetUnavailable, or RunFailed when the runtime refuses the file.

        Raises Misplaced, a RunFailed, when a node would not run on the requested device.
        """
        ...

    @property
    def summary(self) -> str:
        """Its description in one line."""
        return (type(self).__doc__ or "").partition("\n")[0]

    @property
    def host(self) -> str:
        """The other machine on which it runs; empty for this machine."""
        return ""

    @property
    def cost(self) -> Cost:
        """What its sessions can measure; raises TargetUnavailable where that depends on a missing device."""
        return "latency"

    def isa(self) -> Collection[str]:
        """Return the CPU flags by which its kernels are chosen (see `machine_state`); none where they are not known.

        Raises as `open` does where a board must be asked.
        """
        return ()

    def set_up(self, *, force: bool = False, progress: Progress = silent) -> list[str]:  # noqa: ARG002 (few need it)
        """Install what it needs, and return what was done in lines; none where nothing was missing.

        force: install it again. Raises UnknownTarget for a target that needs no setup.
        """
        raise UnknownTarget(f"{self.name} needs no setup; ssh://[USER@]HOST and arm64:CPU do")

    def pin(self, cores: Collection[int]) -> None:
        """Keep sessions that are opened from now on on these cores; raises RunFailed where one is missing."""
        pin(cores)

    def cold_start(self, artifact: Artifact, *, threads: int = 1) -> ColdStart | None:  # noqa: ARG002 (a device can)
        """Return load and first inference in a fresh process; None where the target has no such process."""
        return None

    def peak_memory(self, artifact: Artifact, *, threads: int = 1) -> int:  # noqa: ARG002 (a device can)
        """Return by how many bytes opening the artifact raises the memory of a fresh process.

        Raises RunFailed where that cannot be measured.
        """
        raise RunFailed(f"{self.name} cannot measure how much memory a file takes; take a device")

    def operators(self, artifact: Artifact, *, threads: int = 1, batch: int = 1) -> list[Operator]:  # noqa: ARG002
        """Return the operators of an inference with their times, in this process; raises RunFailed where it cannot.

        `targets.host.local_target.operators` measures them in a fresh process.
        """
        raise RunFailed(f"{self.name} does not report the time of its operators; take ort-cpu or litert-cpu")

    def count(
        self,
        artifacts: Sequence[Artifact],
        *,
        runs: int = 5,
        batch: int = 1,
        together: bool = False,  # noqa: ARG002 (for targets that gain by it)
        progress: Progress = silent,
    ) -> list[Instructions]:
        """Count the instructions of `runs` inferences of each artifact; raises as opening and `Session.count` do.

        together: use one emulator for all; this saves starting more of them, but changes small counts by a few percent.
        """
        counts = []
        for done, artifact in enumerate(artifacts, 1):
            with self.open(artifact) as session:
                counts.append(session.count(runs=runs, batch=batch))
            progress(f"counting on {self.name}", done, len(artifacts))
        return counts

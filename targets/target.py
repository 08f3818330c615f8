"""The contract of every place where an artifact runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from targets.artifact import Artifact, Format
from targets.errors import RunFailed, UnknownTarget
from targets.host.machine import pin
from targets.session import ColdStart, Cost, Instructions, Operator, Session

Progress = Callable[[str, int, int], None]
"""What is called while something takes long: a label, how many steps are done, of how many."""


def silent(_label: str, _done: int, _total: int) -> None:
    """Say nothing: a Progress for whoever shows none."""


@dataclass(frozen=True)
class Availability:
    """Whether a target can run here; when not, why and what would change that."""

    ok: bool
    reason: str = ""
    fix: str = ""


class Target(Protocol):
    """A place where artifacts run, and all that others may ask of it: nobody tests its name or class.

    Targets derive from this class and say what differs from the defaults, which are those of a device of this machine.
    name: the word that names it, with its settings (`ort-cpu,graph=basic`). settings: the values that each setting
    takes, the default first. members: of a family, what may stand after its colon. default_kernels: whether ONNX
    Runtime and LiteRT run there as they ship, on the CPU, so that this machine's show how a file is run there.
    has_profiler: whether `operators` answers.
    """

    name: str
    formats: frozenset[Format]
    settings: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    members: ClassVar[tuple[str, ...]] = ()
    default_kernels: ClassVar[bool] = False
    has_profiler: ClassVar[bool] = False

    def probe(self) -> Availability:
        """Say whether it is there, without raising; within a second where nothing has to be reached."""
        ...

    def open(self, artifact: Artifact, *, threads: int = 1) -> Session:
        """Load the artifact. Raises TargetUnavailable, or RunFailed when the runtime refuses the file.

        Raises Misplaced, a RunFailed, when a node would run anywhere else than on the device that was asked for.
        """
        ...

    @property
    def summary(self) -> str:
        """What it is, in one line."""
        return (type(self).__doc__ or "").partition("\n")[0]

    @property
    def host(self) -> str:
        """The other machine that it is on; empty for this one."""
        return ""

    @property
    def cost(self) -> Cost:
        """What its sessions can say of an inference; raises TargetUnavailable where a missing device decides that."""
        return "latency"

    def isa(self) -> Collection[str]:
        """Return the flags by which its kernels are chosen (see `machine_state`); none where they are not known.

        Raises as `open` does where a board has to be asked.
        """
        return ()

    def set_up(self, *, force: bool = False, progress: Progress = silent) -> list[str]:  # noqa: ARG002 (few need it)
        """Make it ready and return what was done, a line each; nothing where all was there. force: do it again.

        Raises UnknownTarget for a target that needs no setting up.
        """
        raise UnknownTarget(f"{self.name} needs no setup; ssh://[USER@]HOST and arm64:CPU do")

    def pin(self, cores: Collection[int]) -> None:
        """Keep what is opened there from now on on some cores; raises RunFailed where one is missing."""
        pin(cores)

    def cold_start(self, artifact: Artifact, *, threads: int = 1) -> ColdStart | None:  # noqa: ARG002 (a device can)
        """Return load and first run of a process that does nothing else; None where there is no such process."""
        return None

    def peak_memory(self, artifact: Artifact, *, threads: int = 1) -> int:  # noqa: ARG002 (a device can)
        """Return by how many bytes opening the artifact raises the memory of a process that does nothing else.

        Raises RunFailed where that cannot be measured.
        """
        raise RunFailed(f"{self.name} does not tell how much memory a file takes; take a device")

    def operators(self, artifact: Artifact, *, threads: int = 1, batch: int = 1) -> list[Operator]:  # noqa: ARG002
        """Return the operators of an inference with their times, in this process; raises RunFailed where it cannot.

        `targets.host.fresh_process.operators` measures them in a fresh process.
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

        together: one emulator for all saves its start, but what ran before moves a small count by some percent.
        """
        counts = []
        for done, artifact in enumerate(artifacts, 1):
            with self.open(artifact) as session:
                counts.append(session.count(runs=runs, batch=batch))
            progress(f"counting on {self.name}", done, len(artifacts))
        return counts

"""The target that files are pressed for: evaluated there, or checked there where it is emulated, and measured there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from calibration.dataset import Dataset
from targets import catalog
from targets.artifact import Artifact, Format
from targets.errors import TargetUnavailable
from targets.host.machine import machine_state, saturates
from targets.session import Instructions, TimingPlan
from targets.target import Target
from toolchain.core.errors import StageError, UsageProblem
from toolchain.core.progress import Progress
from toolchain.evaluation.evaluate import Evaluation, evaluate
from toolchain.gate.collect import check_target
from toolchain.gate.policy import Policy
from toolchain.profiling.agreement import agreement
from toolchain.profiling.latency import Profile, profile

CHECKED = 200
"""Test images that an emulated processor answers too: it is some hundred times slower than this machine."""


@dataclass(frozen=True)
class PressTarget:
    """A target of the catalog, or each format's usual one (`name` None).

    formats: what the press was asked to end in.
    """

    name: str | None
    formats: tuple[Format, ...]

    @property
    def target(self) -> Target | None:
        """The one place of all files, or None."""
        return catalog.get(self.name) if self.name else None

    @property
    def emulated(self) -> bool:
        """Whether its cost is told in instructions."""
        target = self.target
        return target is not None and target.cost == "instructions"

    @property
    def saturates(self) -> bool:
        """Whether the 8-bit kernels of ONNX Runtime may saturate there, or it is not known where files will run."""
        return self.name is None or saturates(catalog.isa(self.name))

    def check(self, policy: Policy) -> None:
        """Raise before any work what a press there would end in."""
        target = self.target
        if target is None:
            return
        if not set(self.formats) & target.formats:
            raise UsageProblem(f"{target.name} runs {', '.join(sorted(target.formats))} files only; change --format")
        check_target(policy, target)
        state = target.probe()
        if not state.ok:
            raise TargetUnavailable(f"{target.name}: {state.reason}; {state.fix}")

    def kinds(self) -> tuple[Format, ...]:
        """Return the formats that the place takes, in their order."""
        target = self.target
        return tuple(kind for kind in self.formats if target is None or kind in target.formats)

    def read(self, artifact: Artifact, test: Dataset, *, threads: int, seed: int, progress: Progress) -> Evaluation:
        """Read the test images: there, or where that is emulated here, after a seeded sample of them was checked there.

        Raises StageError when the emulated place answers one of the sample otherwise, or a place has answers only.
        """
        usual = catalog.default_for(artifact.format)
        target = _exact(artifact.format) if self.emulated else self.target or usual
        with target.open(artifact, threads=threads) as session:
            if session.facts.cost == "outputs":
                device = session.facts.device
                raise StageError(
                    f"{target.name} is simulated on {device}: no latency to choose by; take another target"
                )
            if self.emulated:
                sample = np.random.default_rng(seed).choice(len(test), min(CHECKED, len(test)), replace=False)
                with self._target().open(artifact) as there:
                    found = agreement(there, session, test.images[np.sort(sample)])
                if found.differing:
                    raise StageError(f"{artifact.path.name} on {self.name}: {found}; it answers differently there")
            return evaluate(session, test, progress=progress)

    def times(
        self, artifacts: Sequence[Artifact], plan: TimingPlan, *, seed: int, progress: Progress
    ) -> Profile | None:
        """Return the latency of every file there, or None where the place is emulated."""
        if self.emulated:
            return None
        return profile(artifacts, target=self.target, plan=plan, seed=seed, progress=progress)

    def counts(self, artifacts: Sequence[Artifact], *, progress: Progress) -> list[Instructions | None]:
        """Return the instructions of every file there, or None each where the place is not emulated."""
        if not self.emulated:
            return [None] * len(artifacts)
        return list(self._target().count(artifacts, progress=progress))

    def notes(self) -> tuple[str, ...]:
        """Return what a report says of the place: formats that it does not take, and that it is emulated."""
        left = [f".{kind}" for kind in self.formats if kind not in self.kinds()]
        notes = (f"{self.name} does not run {', '.join(left)}, so none was made",) if left else ()
        if not self.emulated:
            return notes
        return (
            *notes,
            f"accuracy was read on this machine; {self.name}, which is emulated, gave the same answers on {CHECKED} "
            "test images of each file. instructions: of one inference on one thread there, which is no time",
        )

    def _target(self) -> Target:
        target = self.target
        if target is None:
            raise UsageProblem("no target is named; give one")
        return target


def _exact(kind: Format) -> Target:
    """Return the target of this machine whose kernels do not saturate, as those of an emulated Arm do not."""
    precise = catalog.get("ort-precise")
    needed = kind in precise.formats and saturates(machine_state().get("isa", ())) and precise.probe().ok
    return precise if needed else catalog.default_for(kind)

"""What a press is asked to do, and the target on which it reads and measures its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from calibration.dataset import Dataset
from targets import catalog
from targets.artifact import Artifact, Format
from targets.errors import TargetUnavailable
from targets.host.machine import machine_state, saturates
from targets.session import Instructions, TimingPlan
from targets.target import Target
from toolchain.checkpoint import CheckpointRequest
from toolchain.checkpoint.float_model import FloatModel, OnnxModel
from toolchain.core.context import RunContext
from toolchain.core.errors import StageError, UsageProblem
from toolchain.evaluation.evaluate import Evaluation, evaluate
from toolchain.formats.catalog import pressed
from toolchain.gate.collect import check_target
from toolchain.gate.policy import Policy, default_policy
from toolchain.profiling.latency import Profile, profile
from toolchain.profiling.measurements import agreement
from toolchain.recipe import Recipe
from toolchain.report.rows import Prefer

_CHECKED = 200
"""Number of test images that an emulated processor reads too: it is several hundred times slower than this machine."""


@dataclass(frozen=True)
class PressTarget:
    """A target of the catalog, or the default target of each format (`name` None).

    requested: the output formats of the press.
    """

    name: str | None
    requested: tuple[Format, ...]

    @property
    def target(self) -> Target | None:
        """The target that is named, or None."""
        return catalog.get(self.name) if self.name else None

    @property
    def emulator(self) -> Target | None:
        """The target if its cost is counted in instructions, or None."""
        target = self.target
        return target if target and target.cost == "instructions" else None

    @property
    def saturates(self) -> bool:
        """Whether the 8-bit kernels of ONNX Runtime may saturate there, or it is not known where files will run."""
        return self.name is None or saturates(catalog.isa(self.name))

    def refuse_impossible(self, policy: Policy) -> None:
        """Raise UsageProblem or TargetUnavailable, before any work, if no press can be run or judged there."""
        if (target := self.target) is None:
            return
        if not set(self.requested) & target.formats:
            raise UsageProblem(f"{target.name} runs {', '.join(sorted(target.formats))} files only; change --format")
        check_target(policy, target)
        state = target.probe()
        if not state.ok:
            raise TargetUnavailable(f"{target.name}: {state.reason}; {state.fix}")

    def formats(self) -> tuple[Format, ...]:
        """Return the output formats that the target runs, in the order in which they were asked for."""
        target = self.target
        return tuple(format_ for format_ in self.requested if target is None or format_ in target.formats)

    def read(self, artifact: Artifact, test: Dataset, context: RunContext) -> Evaluation:
        """Read the test images on the target.

        For an emulated target they are read on this machine, after a seeded sample of them was read on both. Raises
        StageError if the two answer differently, or if the target is simulated and has no latency.
        """
        emulator, default = self.emulator, catalog.default_for(artifact.format)
        target = _exact(artifact.format) if emulator else self.target or default
        with target.open(artifact, threads=context.threads) as session:
            if session.facts.cost == "outputs":
                simulated = f"{target.name} is simulated on {session.facts.device}"
                raise StageError(f"{simulated}: no latency to choose by; take another target")
            if emulator:
                sample = np.random.default_rng(context.seed).choice(len(test), min(_CHECKED, len(test)), replace=False)
                with emulator.open(artifact) as emulated:
                    compared = agreement(emulated, session, test.images[np.sort(sample)])
                if compared.differing:
                    raise StageError(f"{artifact.path.name} on {self.name}: {compared}; it answers differently there")
            return evaluate(session, test, progress=context.progress)

    def times(self, artifacts: Sequence[Artifact], plan: TimingPlan, context: RunContext) -> Profile | None:
        """Return the latency of every file, or None if the target is emulated."""
        if self.emulator:
            return None
        return profile(artifacts, target=self.target, plan=plan, context=replace(context, threads=1))

    def counts(self, artifacts: Sequence[Artifact], context: RunContext) -> list[Instructions | None]:
        """Return the instructions of one inference of every file, or None for each if the target is not emulated."""
        emulator = self.emulator
        return list(emulator.count(artifacts, progress=context.progress)) if emulator else [None] * len(artifacts)

    def notes(self) -> tuple[str, ...]:
        """Return the notes for the report: formats that the target does not run, and how an emulated one is used."""
        missing = [f".{format_}" for format_ in self.requested if format_ not in self.formats()]
        notes = (f"{self.name} does not run {', '.join(missing)}, so none was made",) if missing else ()
        if not self.emulator:
            return notes
        return (
            *notes,
            f"accuracy was read on this machine; {self.name}, which is emulated, gave the same answers on {_CHECKED} "
            "test images of each file. instructions: of one inference on one thread there, which is no time",
        )


def _exact(format_: Format) -> Target:
    """Return the target of this machine whose kernels do not saturate, as those of an emulated Arm do not."""
    precise = catalog.get("ort-precise")
    needed = format_ in precise.formats and saturates(machine_state().get("isa", ())) and precise.probe().ok
    return precise if needed else catalog.default_for(format_)


FORMATS = pressed()


@dataclass(frozen=True)
class PressRequest:
    """What a press is asked to do.

    checkpoint: a file or the name of a shipped model; checkpoint_options: how to read it. data: the images, as
    `calibration.load.load` takes them. recipes: in order; the float conversion always comes first. formats: the output
    formats; formats_named: whether the user named them, so that the report says which of them a recipe does not make.
    recipes_named: whether the user named the recipes; if not, `for_model` leaves out those that the model cannot have.
    target: where files are read, measured and chosen; None takes each format's default target. plan: how the files are
    timed, always on one thread. prefer: how the winner is chosen (`winner.Prefer`). command: for the report.

    Raises UsageProblem if a recipe makes none of the formats, two recipes share a name, or the policy pins a baseline.
    """

    checkpoint: str
    data: str
    recipes: tuple[Recipe, ...]
    checkpoint_options: CheckpointRequest = field(default_factory=CheckpointRequest)
    formats: tuple[Format, ...] = FORMATS
    formats_named: bool = False
    recipes_named: bool = True
    policy: Policy = field(default_factory=default_policy)
    plan: TimingPlan = field(default_factory=TimingPlan)
    target: str | None = None
    prefer: Prefer = "balanced"
    command: tuple[str, ...] = ()

    @property
    def press_target(self) -> PressTarget:
        """Where the files are read and measured."""
        return PressTarget(self.target, self.formats)

    def for_model(self, model: FloatModel) -> tuple[PressRequest, tuple[str, ...]]:
        """Return the request without what the model cannot have and nobody asked for, and a note on that.

        A forest or a support vector machine has no layers to quantize or to convert to another format than ONNX.
        """
        if not isinstance(model, OnnxModel) or model.estimator is None:
            return self, ()
        recipes = self.recipes if self.recipes_named else tuple(each for each in self.recipes if not each.steps)
        formats = self.formats if self.formats_named else ("onnx",)
        omitted = [each.name for each in self.recipes if each not in recipes]
        omitted += [f".{format_}" for format_ in self.formats if format_ not in formats]
        note = f"{', '.join(omitted)} left out: {model.name} is {model.estimator.title}, which has no layers for that"
        return replace(self, recipes=recipes, formats=formats), (note,) if omitted else ()

    def notes(self) -> tuple[str, ...]:
        """Return a note for the report on every file whose format was named but whose recipe does not make it."""
        if not self.formats_named:
            return ()
        return tuple(
            f"{recipe.name} makes {', '.join(recipe.formats)} only, so no {recipe.name}.{format_} was made"
            for recipe in self.recipes
            for format_ in self.press_target.formats()
            if format_ not in recipe.formats
        )

    def __post_init__(self) -> None:
        """Raise UsageProblem for a request that cannot be carried out."""
        if self.policy.baseline is not None and self.policy.baseline.digest is not None:
            raise UsageProblem(
                "the policy's [baseline] names a stored baseline, but a press judges by its own float file; leave that "
                "table out, or judge the files with `glyphpress gate`"
            )
        for recipe in self.recipes:
            if not set(recipe.formats) & set(self.formats):
                raise UsageProblem(
                    f"recipe {recipe.name} makes {', '.join(recipe.formats)} only, but --format asks for "
                    f"{', '.join(self.formats)}; change one of them"
                )
        names = [recipe.name for recipe in self.recipes]
        if len(set(names)) < len(names):
            raise UsageProblem(f"two recipes share a name ({', '.join(names)}); give each file a name of its own")

"""What a press is asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from targets.artifact import Format
from targets.session import TimingPlan
from toolchain.checkpoint import CheckpointRequest
from toolchain.commands.press_target import PressTarget
from toolchain.core.context import RunContext
from toolchain.core.errors import UsageProblem
from toolchain.core.progress import Progress
from toolchain.gate.policy import Policy, default_policy
from toolchain.recipe import Recipe
from toolchain.report.winner import Prefer

FORMATS: tuple[Format, ...] = ("onnx", "tflite")


@dataclass(frozen=True)
class PressRequest:
    """What a press is asked to do.

    checkpoint: file or model name; words: how to read it. data, data_root: the images, as `calibration.load.load`
    takes them. recipes: in order; the float conversion always comes first. formats: what to end in; formats_named:
    whether the user named them, so that the report says which of them a recipe does not make. target: the place that
    files are read, costed and chosen on, by default each format's own. threads: for
    accuracy and training, 0 takes all cores; latency is always timed on one, as `plan` says. prefer: what winning means
    (`winner.Prefer`). command: recorded.
    """

    checkpoint: str
    data: str
    recipes: tuple[Recipe, ...]
    words: CheckpointRequest = field(default_factory=CheckpointRequest)
    data_root: Path | None = None
    formats: tuple[Format, ...] = FORMATS
    formats_named: bool = False
    policy: Policy = field(default_factory=default_policy)
    plan: TimingPlan = field(default_factory=TimingPlan)
    target: str | None = None
    prefer: Prefer = "balanced"
    seed: int = 0
    threads: int = 0
    command: tuple[str, ...] = ()

    @property
    def press_target(self) -> PressTarget:
        """Where the files are read and costed."""
        return PressTarget(self.target, self.formats)

    def notes(self) -> tuple[str, ...]:
        """Return what a report says of files that were asked for by the name of their format, and are not made."""
        if not self.formats_named:
            return ()
        return tuple(
            f"{recipe.name} makes {', '.join(recipe.formats)} only, so no {recipe.name}.{kind} was made"
            for recipe in self.recipes
            for kind in self.press_target.kinds()
            if kind not in recipe.formats
        )

    def run(self, progress: Progress) -> RunContext:
        """Return what the stages of this press are run with."""
        return RunContext(self.seed, self.threads, progress, self.data_root)

    def __post_init__(self) -> None:
        """Raise UsageProblem where a recipe ends in none of the formats, two share a name, or a baseline is pinned."""
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

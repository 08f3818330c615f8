"""What a press is asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field

from targets.artifact import Format
from targets.session import TimingPlan
from toolchain.checkpoint import CheckpointRequest
from toolchain.commands.press_target import PressTarget
from toolchain.core.errors import UsageProblem
from toolchain.formats.catalog import pressed
from toolchain.gate.policy import Policy, default_policy
from toolchain.recipe import Recipe
from toolchain.report.rows import Prefer

FORMATS = pressed()


@dataclass(frozen=True)
class PressRequest:
    """What a press is asked to do.

    checkpoint: a file or the name of a shipped model; words: how to read it. data: the images, as
    `calibration.load.load` takes them. recipes: in order; the float conversion always comes first. formats: the output
    formats; formats_named: whether the user named them, so that the report says which of them a recipe does not make.
    target: where files are read, measured and chosen; None takes each format's default target. plan: how the files are
    timed, always on one thread. prefer: how the winner is chosen (`winner.Prefer`). command: for the report.

    Raises UsageProblem if a recipe makes none of the formats, two recipes share a name, or the policy pins a baseline.
    """

    checkpoint: str
    data: str
    recipes: tuple[Recipe, ...]
    words: CheckpointRequest = field(default_factory=CheckpointRequest)
    formats: tuple[Format, ...] = FORMATS
    formats_named: bool = False
    policy: Policy = field(default_factory=default_policy)
    plan: TimingPlan = field(default_factory=TimingPlan)
    target: str | None = None
    prefer: Prefer = "balanced"
    command: tuple[str, ...] = ()

    @property
    def press_target(self) -> PressTarget:
        """Where the files are read and measured."""
        return PressTarget(self.target, self.formats)

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

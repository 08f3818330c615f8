"""ModelStep: a step of a recipe that changes a float model, and the context that it works in."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolchain.core.errors import CheckpointError
from toolchain.core.settings import Step

if TYPE_CHECKING:
    from calibration.dataset import Dataset
    from calibration.errors import DataNotFound
    from toolchain.checkpoint.float_model import FloatModel
    from toolchain.core.context import RunContext


@dataclass(frozen=True)
class StepContext:
    """What a step gets besides the model.

    training: the train split, or the error that says why there is none. original: the model before the first step.
    following: the steps after this one.
    """

    run: RunContext
    training: Dataset | DataNotFound
    original: FloatModel
    following: tuple[Step, ...] = ()

    @property
    def train(self) -> Dataset:
        """The train split; raises DataNotFound where there is none."""
        from calibration.load import required

        return required(self.training, "this recipe needs them")

    def teacher(self, checkpoint: str) -> FloatModel:
        """Load the model to learn from; an empty name means the original one. Raises CheckpointError."""
        if not checkpoint:
            return self.original
        from toolchain.checkpoint import CheckpointRequest, settle

        try:
            return settle(checkpoint, CheckpointRequest(), self.train, seed=self.run.seed).model
        except CheckpointError as error:
            fix = "where --model is needed, give the .onnx that `glyphpress export` makes of it"
            raise CheckpointError(f"teacher: {error}; {fix}") from error


class ModelStep(Step):
    """A step that changes a float model."""

    @property
    def builds_student(self) -> bool:
        """Return whether the result has another architecture than the model."""
        return False

    def check(self, model: FloatModel, context: StepContext) -> None:
        """Raise what `apply` would raise before it begins to train."""

    @abstractmethod
    def apply(self, model: FloatModel, context: StepContext) -> FloatModel:
        """Return the changed model; raises StageError where that cannot be done."""

    def untrained(self, model: FloatModel, context: StepContext) -> FloatModel:  # noqa: ARG002 (for students)
        """Return the result as it is before any training, with the same layers and shapes."""
        return model

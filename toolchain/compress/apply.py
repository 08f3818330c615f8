"""The steps of a recipe that take a model to a model, each by its own stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from calibration.dataset import Dataset, required
from calibration.errors import DataNotFound
from toolchain.checkpoint import CheckpointRequest, settle
from toolchain.checkpoint.float_model import FloatModel
from toolchain.compress.distill import distill
from toolchain.compress.equalize import equalize
from toolchain.compress.prune import planned, prune
from toolchain.compress.qat import qat
from toolchain.errors import CheckpointError
from toolchain.progress import Progress
from toolchain.recipe import Distill, Equalize, Prune, Qat, Recipe
from toolchain.training.fit import torch_threads


@dataclass(frozen=True)
class Shaper:
    """What every such stage is given: a train split, or why there is none, seed, threads, and who listens."""

    training: Dataset | DataNotFound
    seed: int
    threads: int
    progress: Progress

    @property
    def train(self) -> Dataset:
        """The train split; raises DataNotFound where there is none."""
        return required(self.training, "this recipe needs them")

    def check(self, model: FloatModel, recipe: Recipe) -> None:
        """Raise what pruning would raise, where a recipe begins with it: before other recipes train for an hour."""
        first = recipe.shaping[:1]
        if first and isinstance(first[0], Prune):
            with torch_threads(self.threads):
                planned(model, first[0], self.train, seed=self.seed)

    def shaped(self, model: FloatModel, recipe: Recipe) -> FloatModel:
        """Take the model through the steps of a recipe, all but its quantization; raises what their stages raise."""
        came = model
        run: dict[str, Any] = {"seed": self.seed, "threads": self.threads, "progress": self.progress}
        for step in recipe.shaping:
            match step:
                case Prune():
                    model = prune(model, step, self.train, **run)
                case Equalize():
                    model = equalize(model, step)
                case Distill():
                    model = distill(model, step, self.train, teacher=self._teacher(step.teacher, came), **run)
                case Qat():
                    assert recipe.quantize, "a recipe with qat ends in a quantization, or it is refused"
                    teacher = self._teacher(step.teacher, came)
                    model = qat(model, step, recipe.quantize, self.train, teacher=teacher, **run)
        return model

    def _teacher(self, checkpoint: str, came: FloatModel) -> FloatModel:
        if not checkpoint:
            return came
        try:
            return settle(checkpoint, CheckpointRequest(), self.train, seed=self.seed).model
        except CheckpointError as error:
            fix = "where --model is needed, give the .onnx that `glyphpress export` makes of it"
            raise CheckpointError(f"teacher: {error}; {fix}") from error

"""Compression of float models: the base class of its steps, and the handling of torch modules that the steps share."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

from calibration.spec import classes_text
from toolchain.core.errors import CheckpointError, OptionNeeded, UsageProblem
from toolchain.core.settings import Step

if TYPE_CHECKING:
    from torch import Tensor, nn

    from calibration.dataset import Dataset
    from calibration.errors import DataNotFound
    from toolchain.checkpoint.float_model import FloatModel
    from toolchain.core.context import RunContext
    from toolchain.training.settings import TrainSettings

Precision = Literal["float32", "bfloat16"]
PRECISION_TEXT = "of the layers' arithmetic in training; bfloat16 is faster on CPUs that compute with it"
"""The setting `precision` of the steps that train; see `TrainSettings.precision`."""


@dataclass(frozen=True)
class StepContext:
    """Everything that a step gets besides the model.

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
        """Load the model to learn from; an empty name means the original one. Raises as `settle` does."""
        if not checkpoint:
            return self.original
        from toolchain.checkpoint import CheckpointRequest, settle

        try:
            teacher = settle(checkpoint, CheckpointRequest(), self.train, seed=self.run.seed).model
        except OptionNeeded as error:
            fix = "a teacher takes no such option, so give the .onnx that `glyphpress export` makes of it with that"
            raise CheckpointError(f"teacher: {error}; {fix}") from error
        except (CheckpointError, UsageProblem) as error:
            error.args = (f"teacher: {error}",)
            raise
        if teacher.classes != self.original.classes:
            raise CheckpointError(
                f"teacher: {checkpoint} has the classes in another order than {self.original.name}; give one that was "
                f"trained with --classes {classes_text(self.original.classes)}"
            )
        return teacher


class ModelStep(Step):
    """A step that changes a float model."""

    @property
    def builds_student(self) -> bool:
        """Return whether the result has another architecture than the model."""
        return False

    @property
    def choice(self) -> str:
        """Return what `planned` chose, as one line; empty where it chose nothing."""
        return ""

    def planned(self, model: FloatModel, context: StepContext) -> Self:  # noqa: ARG002 (for students)
        """Return the step with those settings chosen that follow the model; raises StageError where none can be."""
        return self

    def check(self, model: FloatModel, context: StepContext) -> None:
        """Raise what `apply` would raise before it begins to train."""

    @abstractmethod
    def apply(self, model: FloatModel, context: StepContext) -> FloatModel:
        """Return the changed model; raises StageError where that cannot be done."""

    def untrained(self, model: FloatModel, context: StepContext) -> FloatModel:  # noqa: ARG002 (for students)
        """Return the result as it is before any training, with the same layers and shapes."""
        return model


def weights(module: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """Return layer and attribute of every weight that can be pruned (two or more axes), by the layer's name."""
    from torch import nn

    prunable: dict[str, tuple[nn.Module, str]] = {}
    for name, layer in module.named_modules():
        if isinstance(layer, nn.modules.conv._ConvNd | nn.Linear):
            prunable[name] = layer, "weight"
        elif isinstance(layer, nn.MultiheadAttention) and layer.in_proj_weight is not None:
            prunable[name] = layer, "in_proj_weight"
    return prunable


def keep_zeros(module: nn.Module) -> nn.Module:
    """Return the module with masks that keep the weights that are zero now at zero while it is copied and fitted.

    A mask is a parametrization of its weight. `remove_masks` removes those of one copy; then torch leaves the other
    copies without their weights.
    """
    from torch import nn
    from torch.nn.utils import parametrize

    class Masked(nn.Module):
        """A weight times its mask, which is no buffer, since training averages buffers."""

        def __init__(self, mask: Tensor) -> None:
            super().__init__()
            self.mask = mask

        def forward(self, weight: Tensor) -> Tensor:
            return weight * self.mask

    for layer, attribute in weights(module).values():
        mask = getattr(layer, attribute).detach() != 0
        if not mask.all():
            parametrize.register_parametrization(layer, attribute, Masked(mask))
    return module


def remove_masks(module: nn.Module) -> nn.Module:
    """Return the module with plain weights in place of the masked ones of `keep_zeros`."""
    from torch.nn.utils import parametrize

    for layer in list(module.modules()):
        if parametrize.is_parametrized(layer):
            for attribute in list(layer.parametrizations):  # type: ignore[arg-type] # torch types it loosely
                parametrize.remove_parametrizations(layer, attribute)
    return module


def fine_tuning(images: int, **changes: float) -> TrainSettings:
    """Return the preset `fine-tune` with `changes`, for that many training images."""
    from toolchain.training.presets import preset, preset_for

    # Few images need small batches, or an epoch would have only a handful of steps.
    return preset("fine-tune").changed(batch=preset_for(images).batch, **changes)

"""Quantization-aware training: a float model whose weights are already rounded as the file's will be.

The result is still a float model, exported and quantized like any other, in either format. Its weights are those that
the quantizer rounds to, and the learned ranges of its layers' inputs are passed to the quantizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from toolchain.compress import PRECISION_TEXT, ModelStep, Precision, StepContext, fine_tuning, keep_zeros
from toolchain.compress.equalize import folded
from toolchain.core.errors import StageError
from toolchain.core.quantities import counted
from toolchain.core.settings import Step
from toolchain.quantize.step import Quantize

if TYPE_CHECKING:
    from calibration.dataset import Dataset
    from toolchain.checkpoint.float_model import FloatModel
    from toolchain.core.context import RunContext

OBSERVED = 1024
"""Number of images on which the initial ranges are observed."""


class Qat(ModelStep):
    """Quantization-aware training (Jacob et al., arXiv:1712.05877) for the quantize step that follows.

    Training rounds weights and the inputs of layers as that step will, and the file gets the ranges that it learns. The
    original model is the teacher, as in `distill`.
    """

    kind: Literal["qat"] = "qat"
    epochs: int = Field(default=4, ge=1, le=100_000, description="epochs on the train split")
    lr: float = Field(default=1e-3, gt=0, le=0.1, description="peak of the learning rate")
    augment: float = Field(default=1.0, ge=0, le=3, description="strength of the random affine maps; 0: none")
    teacher: str = Field(default="", description="a checkpoint to learn from; empty: the original model")
    temperature: float = Field(default=2.0, ge=1, le=20, description="softens the probabilities of teacher and student")
    soft: float = Field(default=0.9, gt=0, le=1, description="weight of the teacher's answers against the labels")
    precision: Precision = Field(default="float32", description=PRECISION_TEXT)

    def check_order(self, before: Sequence[Step], after: Sequence[Step]) -> None:
        """Raise ValueError unless one static quantization follows at once, and no other qat comes before."""
        last = _quantization([*before, *after])
        if last and not last.per_channel:
            raise ValueError("qat rounds weights channel by channel; leave `per_channel` out")
        repeated = any(isinstance(step, Qat) for step in before)
        if repeated or len(after) != 1 or not last or not last.calibrated:
            raise ValueError(
                "qat trains for a static scheme: put it once, right before the quantize step that names it"
            )

    def check(self, model: FloatModel, context: StepContext) -> None:  # noqa: ARG002 (any model has a teacher)
        """Raise what keeps the teacher from being loaded."""
        context.teacher(self.teacher)

    def apply(self, model: FloatModel, context: StepContext) -> FloatModel:
        """Return the model trained for the quantization that follows."""
        teacher, last = context.teacher(self.teacher), _quantization(context.following)
        assert last, "a recipe with qat ends in a quantization, or it is refused"
        return qat(model, self, last, context.train, teacher=teacher, context=context.run)


def _quantization(steps: Sequence[Step]) -> Quantize | None:
    return next((step for step in steps if isinstance(step, Quantize)), None)


def qat(
    model: FloatModel,
    step: Qat,
    quantize: Quantize,
    data: Dataset,
    *,
    teacher: FloatModel,
    context: RunContext,
) -> FloatModel:
    """Return the model with batch norms folded and weights rounded for `quantize`, fitted to `data` (a train split).

    Its `input_ranges` are the learned ranges of each layer's input, in the order in which layers run. Raises StageError
    when the model is not in torch, cannot be traced (torch.fx) or has no layer to quantize.
    """
    import numpy as np

    from toolchain.compress.fake_quantize import add_grids, layers_in_order, observed_ranges, remove_grids
    from toolchain.training.fit import fit
    from toolchain.training.loss import notes_on, taught_by

    module = keep_zeros(folded(model, "quantization-aware training"))
    images = data.images[np.sort(np.random.default_rng(context.seed).permutation(len(data))[:OBSERVED])]
    layers = layers_in_order(module, model.preprocess.apply(images[:2]))
    if not layers:
        raise StageError(f"{model.name} has no Linear or Conv2d layer that runs once; there is nothing to quantize")
    ranges = observed_ranges(module, layers, model.preprocess.apply(images))
    add_grids(module, layers, ranges, quantize)
    settings = fine_tuning(
        len(data), epochs=step.epochs, lr=step.lr, augment=step.augment, label_smoothing=0.0
    ).changed(precision=step.precision)
    with taught_by(teacher, temperature=step.temperature, soft=step.soft, threads=context.threads) as lesson:
        fitted = fit(module, data, model.preprocess, settings, lesson=lesson, context=context)
    learned = remove_grids(fitted, layers)
    line = (
        f"trained for {quantize.scheme} with rounded weights and inputs: {counted(step.epochs, 'epoch')} on "
        f"{data.origin}, teacher {teacher.name} ({step.soft:.0%} of the loss, temperature {step.temperature:g}), "
        f"seed {context.seed}"
    )
    history = (*model.history, *notes_on(teacher, model), line)
    return replace(model.with_module(fitted.eval()), input_ranges=learned, history=history)

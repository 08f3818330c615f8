"""Quantization-aware training: a FloatModel whose weights lie on the grid that the file will have.

What comes out is still a float model, so it is exported and quantized like any other, in either format; its weights
are what the quantizer would round them to, and the learned ranges of what enters its layers go to the quantizer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from calibration.dataset import Dataset
from toolchain.checkpoint.float_model import FloatModel, Range
from toolchain.compress.fold import folded
from toolchain.compress.prune import zeros_kept
from toolchain.compress.step import ModelStep, StepContext
from toolchain.core.context import RunContext
from toolchain.core.errors import StageError
from toolchain.core.settings import Step
from toolchain.quantize.step import Quantize
from toolchain.training.fit import as_tensor, fit
from toolchain.training.losses import notes_on, taught_by
from toolchain.training.settings import preset, preset_for

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.hooks import RemovableHandle

SEEN = 1024
"""Images whose activations the ranges start from."""
EIGHT_BITS = 64
"""Largest level of an integer weight of 8 bits that is safe on any target: sums of 16 bits do not saturate."""


class Qat(ModelStep):
    """Quantization-aware training (Jacob et al., arXiv:1712.05877) for the quantize step that follows.

    Weights and the inputs of layers are rounded in training as that step will round them; what it learns of ranges is
    what the file gets. The model as it came teaches, as in `distill`.
    """

    kind: Literal["qat"] = "qat"
    epochs: int = Field(default=4, ge=1, le=100_000, description="epochs on the train split")
    lr: float = Field(default=1e-3, gt=0, le=0.1, description="peak of the learning rate")
    augment: float = Field(default=1.0, ge=0, le=3, description="strength of the random affine maps; 0 none")
    teacher: str = Field(default="", description="a checkpoint to learn from; empty learns from the model as it came")
    temperature: float = Field(default=2.0, ge=1, le=20, description="softens the probabilities of both")
    soft: float = Field(default=0.9, gt=0, le=1, description="weight of the teacher's answers against the labels")

    def check_order(self, before: Sequence[Step], after: Sequence[Step]) -> None:
        """Raise ValueError unless one static quantization follows at once, and no other qat comes before."""
        last = _quantization([*before, *after])
        if last and not last.per_channel:
            raise ValueError("qat rounds weights channel by channel; leave per_channel out")
        again = any(isinstance(step, Qat) for step in before)
        if again or len(after) != 1 or not last or not last.calibrated:
            raise ValueError(
                "qat trains for a static scheme: put it once, right before the quantize step that names it"
            )

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

    Its `input_ranges` are what was learned of each layer's input, in the order in which layers run. Raises StageError
    when the model is not in torch, cannot be traced (torch.fx) or has no layer to quantize.
    """
    module = zeros_kept(folded(model, "quantization-aware training"))
    images = data.images[np.sort(np.random.default_rng(context.seed).permutation(len(data))[:SEEN])]
    layers = _ran(module, model.preprocess.apply(images[:2]))
    if not layers:
        raise StageError(f"{model.name} has no Linear or Conv2d layer that runs once; there is nothing to quantize")
    ranges = _observed(module, layers, model.preprocess.apply(images))
    _put_grids(module, layers, ranges, quantize)
    # Few images need small batches, or a handful of steps is all they give.
    settings = preset("fine-tune").changed(
        epochs=step.epochs,
        lr=step.lr,
        augment=step.augment,
        label_smoothing=0.0,
        batch=preset_for(len(data)).batch,
    )
    with taught_by(teacher, temperature=step.temperature, soft=step.soft, threads=context.threads) as lesson:
        fitted = fit(module, data, model.preprocess, settings, lesson=lesson, context=context)
    learned = _take_grids(fitted, layers)
    line = (
        f"trained for {quantize.scheme} with rounded weights and inputs: {step.epochs} epoch{'s' * (step.epochs != 1)} "
        f"on {data.origin}, "
        f"teacher {teacher.name} ({step.soft:.0%} of the loss, temperature {step.temperature:g}), seed {context.seed}"
    )
    history = (*model.history, *notes_on(teacher, model), line)
    return replace(model.with_module(fitted.eval()), input_ranges=learned, history=history)


def _ran(module: nn.Module, pixels: Any) -> tuple[str, ...]:
    """Return the names of the layers with weights, in the order in which they ran; one that ran twice is left out."""
    import torch
    from torch import nn

    order: list[str] = []
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    hooks = [layer.register_forward_hook(lambda *_, name=name: order.append(name)) for name, layer in layers.items()]
    with _removed(hooks), torch.no_grad():
        module(as_tensor(module, pixels))
    return tuple(name for name in order if order.count(name) == 1)


def _observed(module: nn.Module, layers: tuple[str, ...], pixels: Any) -> list[Range]:
    """Return the smallest and largest value that enters each layer."""
    import torch

    found: dict[str, list[float]] = {name: [np.inf, -np.inf] for name in layers}

    def note(name: str, values: torch.Tensor) -> None:
        low, high = found[name]
        found[name] = [min(low, float(values.min())), max(high, float(values.max()))]

    hooks = [
        module.get_submodule(name).register_forward_pre_hook(lambda _, taken, name=name: note(name, taken[0]))
        for name in layers
    ]
    with _removed(hooks), torch.no_grad():
        for part in np.array_split(pixels, max(1, len(pixels) // 256)):
            module(as_tensor(module, part))
    return [Range(*found[name]) for name in layers]


def _put_grids(module: nn.Module, layers: tuple[str, ...], ranges: list[Range], quantize: Quantize) -> None:
    from torch import nn
    from torch.nn.utils import parametrize

    from toolchain.compress.fake_quantize import InputGrid, WeightGrid

    for number, (name, seen) in enumerate(zip(layers, ranges, strict=True)):
        layer = module.get_submodule(name)
        # Four bits leave convolutions of one channel at eight.
        single = isinstance(layer, nn.Conv2d) and layer.weight.shape[1] == 1
        top = EIGHT_BITS if single else quantize.top_level
        parametrize.register_parametrization(layer, "weight", WeightGrid(layer.weight, top))  # type: ignore[arg-type] # a tensor
        layer.input_grid = InputGrid(seen.low, seen.high, learned=number > 0)
        layer.register_forward_pre_hook(_round_input)


def _round_input(layer: Any, taken: tuple[Any, ...]) -> Any:
    return layer.input_grid(taken[0]) if hasattr(layer, "input_grid") else None


def _take_grids(module: nn.Module, layers: tuple[str, ...]) -> tuple[Range, ...]:
    """Leave the rounded weights in place of the trained ones, and return the ranges that were learned."""
    from torch.nn.utils import parametrize

    learned = []
    for name in layers:
        layer = module.get_submodule(name)
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
        low, high = (float(end.detach()) for end in layer.input_grid.ends())  # type: ignore[operator,union-attr] # put there above
        learned.append(Range(low, high))
        del layer.input_grid
        layer._forward_pre_hooks.clear()
    return tuple(learned)


@contextmanager
def _removed(hooks: list[RemovableHandle]) -> Iterator[None]:
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()

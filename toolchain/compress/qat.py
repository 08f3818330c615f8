"""Quantization-aware training: a float model whose weights are already rounded as the file's will be.

The result is still a float model, exported and quantized like any other, in either format. Its weights are those that
the quantizer rounds to, and the learned ranges of its layers' inputs are passed to the quantizer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from toolchain.compress.fold import folded
from toolchain.compress.step import ModelStep, StepContext
from toolchain.core.errors import StageError
from toolchain.core.settings import Step
from toolchain.quantize.step import Quantize
from toolchain.training.settings import preset, preset_for

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.hooks import RemovableHandle

    from calibration.dataset import Dataset
    from toolchain.checkpoint.float_model import FloatModel, Range
    from toolchain.core.context import RunContext

OBSERVED = 1024
"""Number of images on which the initial ranges are observed."""
SAFE_LEVEL = 64
"""Largest level of an 8-bit weight that is safe on any target: sums of 16 bits do not saturate."""


class Qat(ModelStep):
    """Quantization-aware training (Jacob et al., arXiv:1712.05877) for the quantize step that follows.

    Training rounds weights and the inputs of layers as that step will, and the file gets the ranges that it learns. The
    original model is the teacher, as in `distill`.
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
            raise ValueError("qat rounds weights channel by channel; leave `per_channel` out")
        repeated = any(isinstance(step, Qat) for step in before)
        if repeated or len(after) != 1 or not last or not last.calibrated:
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

    Its `input_ranges` are the learned ranges of each layer's input, in the order in which layers run. Raises StageError
    when the model is not in torch, cannot be traced (torch.fx) or has no layer to quantize.
    """
    import numpy as np

    from toolchain.compress.prune.unstructured import zeros_kept
    from toolchain.training.fit import fit, notes_on, taught_by

    module = zeros_kept(folded(model, "quantization-aware training"))
    images = data.images[np.sort(np.random.default_rng(context.seed).permutation(len(data))[:OBSERVED])]
    layers = _layers_in_order(module, model.preprocess.apply(images[:2]))
    if not layers:
        raise StageError(f"{model.name} has no Linear or Conv2d layer that runs once; there is nothing to quantize")
    ranges = _observed_ranges(module, layers, model.preprocess.apply(images))
    _add_grids(module, layers, ranges, quantize)
    # Few images need small batches, or an epoch would have a handful of steps.
    settings = preset("fine-tune").changed(
        epochs=step.epochs,
        lr=step.lr,
        augment=step.augment,
        label_smoothing=0.0,
        batch=preset_for(len(data)).batch,
    )
    with taught_by(teacher, temperature=step.temperature, soft=step.soft, threads=context.threads) as lesson:
        fitted = fit(module, data, model.preprocess, settings, lesson=lesson, context=context)
    learned = _remove_grids(fitted, layers)
    line = (
        f"trained for {quantize.scheme} with rounded weights and inputs: {step.epochs} epoch{'s' * (step.epochs != 1)} "
        f"on {data.origin}, "
        f"teacher {teacher.name} ({step.soft:.0%} of the loss, temperature {step.temperature:g}), seed {context.seed}"
    )
    history = (*model.history, *notes_on(teacher, model), line)
    return replace(model.with_module(fitted.eval()), input_ranges=learned, history=history)


def _layers_in_order(module: nn.Module, pixels: Any) -> tuple[str, ...]:
    """Return the names of the layers with weights that run once, in the order in which they run."""
    import torch
    from torch import nn

    from toolchain.training.fit import as_tensor

    order: list[str] = []
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    hooks = [layer.register_forward_hook(lambda *_, name=name: order.append(name)) for name, layer in layers.items()]
    with _removed(hooks), torch.no_grad():
        module(as_tensor(module, pixels))
    return tuple(name for name in order if order.count(name) == 1)


def _observed_ranges(module: nn.Module, layers: tuple[str, ...], pixels: Any) -> list[Range]:
    """Return the smallest and largest value of each layer's input."""
    import numpy as np
    import torch

    from toolchain.checkpoint.float_model import Range
    from toolchain.training.fit import as_tensor

    limits: dict[str, list[float]] = {name: [np.inf, -np.inf] for name in layers}

    def observe(name: str, values: torch.Tensor) -> None:
        low, high = limits[name]
        limits[name] = [min(low, float(values.min())), max(high, float(values.max()))]

    hooks = [
        module.get_submodule(name).register_forward_pre_hook(lambda _, inputs, name=name: observe(name, inputs[0]))
        for name in layers
    ]
    with _removed(hooks), torch.no_grad():
        for part in np.array_split(pixels, max(1, len(pixels) // 256)):
            module(as_tensor(module, part))
    return [Range(*limits[name]) for name in layers]


def _add_grids(module: nn.Module, layers: tuple[str, ...], ranges: list[Range], quantize: Quantize) -> None:
    from torch import nn
    from torch.nn.utils import parametrize

    from toolchain.compress.fake_quantize import InputGrid, WeightGrid

    for number, (name, limits) in enumerate(zip(layers, ranges, strict=True)):
        layer = module.get_submodule(name)
        # 4-bit schemes keep convolutions of one channel at 8 bits.
        single = isinstance(layer, nn.Conv2d) and layer.weight.shape[1] == 1
        top = SAFE_LEVEL if single else quantize.largest_level
        parametrize.register_parametrization(layer, "weight", WeightGrid(layer.weight, top))  # type: ignore[arg-type] # a tensor
        layer.input_grid = InputGrid(limits.low, limits.high, learned=number > 0)
        layer.register_forward_pre_hook(_round_input)


def _round_input(layer: Any, inputs: tuple[Any, ...]) -> Any:
    return layer.input_grid(inputs[0]) if hasattr(layer, "input_grid") else None


def _remove_grids(module: nn.Module, layers: tuple[str, ...]) -> tuple[Range, ...]:
    """Replace the trained weights by the rounded ones, and return the learned ranges."""
    from torch.nn.utils import parametrize

    from toolchain.checkpoint.float_model import Range

    learned = []
    for name in layers:
        layer = module.get_submodule(name)
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
        low, high = (float(end.detach()) for end in layer.input_grid.ends())  # type: ignore[operator,union-attr] # added by `_add_grids`
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

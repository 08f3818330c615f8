"""Fake quantization: weights and inputs of layers rounded to a grid in training; gradients pass through the rounding.

Learned step size quantization (LSQ, Esser et al., arXiv:1902.08153; for ranges with two ends LSQ+, arXiv:2004.09576).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from toolchain.checkpoint.float_model import Range
from toolchain.checkpoint.inspection import hooks_removed, run_order
from toolchain.quantize.step import Quantize
from toolchain.training.device import as_tensor

SMALLEST = 1e-6
"""Smallest width of a range; training may shrink one to 0, which would divide by zero."""
STEPS = 255
"""Number of steps between the levels of an 8-bit activation."""
SAFE_LEVEL = 64
"""Largest level of an 8-bit weight that is safe on any target: sums of 16 bits do not saturate."""


class WeightGrid(nn.Module):
    """A parametrization of float32 weights [channels, ...]: rounded to 2 * top + 1 symmetric levels per channel.

    The end of each channel's range is learned, and never lies beyond its largest weight, so that this weight is always
    on the last level: a quantizer that takes the maximum of the rounded weights gets the same scale.
    """

    def __init__(self, weight: Tensor, top: int) -> None:
        """Start each channel at the range of least squared error. top: the last level, 7 for 4 bits."""
        super().__init__()
        self.top = top
        self.ends = nn.Parameter(_least_squares(weight.detach(), top))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weights rounded to multiples of their channel's scale."""
        largest = weight.detach().abs().flatten(1).amax(1)
        ends = torch.minimum(self.ends.abs(), largest).clamp_min(SMALLEST)
        scale = (ends / self.top).view(-1, *[1] * (weight.ndim - 1))
        return _rounded(torch.clamp(weight / scale, -self.top, self.top)) * scale


class InputGrid(nn.Module):
    """Rounds the input of a layer to 256 levels between two ends; zero is always a level.

    learned: whether training moves the ends; those of images are fixed, so that a level is a pixel value.
    """

    low: Tensor
    high: Tensor

    def __init__(self, low: float, high: float, *, learned: bool) -> None:
        """Start at the range of a calibration."""
        super().__init__()
        for name, end in (("low", min(low, 0.0)), ("high", max(high, low + SMALLEST))):
            value = torch.tensor(end, dtype=torch.float32)
            if learned and end != 0:
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)

    def ends(self) -> tuple[Tensor, Tensor]:
        """Return (low, high), low <= 0 < high, shifted so that zero is a level."""
        low = self.low.clamp_max(0.0)
        high = torch.maximum(self.high, torch.full_like(self.high, SMALLEST))
        scale = (high - low) / STEPS
        low = _rounded(low / scale) * scale
        return low, low + STEPS * scale

    def forward(self, value: Tensor) -> Tensor:
        """Return the values clipped to the range and rounded to its levels."""
        low, high = self.ends()
        scale = (high - low) / STEPS
        return _rounded(torch.clamp((value - low) / scale, 0, STEPS)) * scale + low


def _rounded(value: Tensor) -> Tensor:
    """Round half to even, as every runtime does; the gradient is that of the identity."""
    return value + (value.round() - value).detach()


def _least_squares(weight: Tensor, top: int) -> Tensor:
    """Return float32 [channels]: the end of each channel's range with the least squared error, of 64 tried."""
    rows = weight.flatten(1)
    largest = rows.abs().amax(1, keepdim=True).clamp_min(SMALLEST)
    shares = torch.linspace(1.0, 0.37, 64)
    errors = []
    for share in shares:
        scale = largest * share / top
        errors.append(((rows / scale).round().clamp(-top, top) * scale - rows).square().sum(1))
    best = torch.stack(errors).argmin(0)
    return largest[:, 0] * shares[best]


def layers_in_order(module: nn.Module, pixels: NDArray[np.float32]) -> tuple[str, ...]:
    """Return the names of the layers with weights that run once, in the order in which they run."""
    named = module.named_modules()
    names: dict[nn.Module, str] = {layer: name for name, layer in named if isinstance(layer, nn.Conv2d | nn.Linear)}
    order = run_order(module, names, as_tensor(module, pixels))
    return tuple(names[layer] for layer in order if order.count(layer) == 1)


def observed_ranges(module: nn.Module, layers: tuple[str, ...], pixels: NDArray[np.float32]) -> list[Range]:
    """Return the smallest and largest value of each layer's input."""
    limits = dict.fromkeys(layers, (np.inf, -np.inf))

    def observe(name: str, values: Tensor) -> None:
        low, high = limits[name]
        limits[name] = min(low, float(values.min())), max(high, float(values.max()))

    hooks = [
        module.get_submodule(name).register_forward_pre_hook(lambda _, inputs, name=name: observe(name, inputs[0]))
        for name in layers
    ]
    with hooks_removed(hooks), torch.no_grad():
        for part in np.array_split(pixels, max(1, len(pixels) // 256)):
            module(as_tensor(module, part))
    return [Range(*limits[name]) for name in layers]


def add_grids(module: nn.Module, layers: tuple[str, ...], ranges: list[Range], quantize: Quantize) -> None:
    """Round the weights and inputs of layers as `quantize` will; ranges: of the inputs to begin with."""
    for number, (name, limits) in enumerate(zip(layers, ranges, strict=True)):
        layer = module.get_submodule(name)
        # 4-bit schemes keep convolutions of one channel at 8 bits.
        one_channel = isinstance(layer, nn.Conv2d) and layer.weight.shape[1] == 1
        top = SAFE_LEVEL if one_channel else quantize.largest_level
        parametrize.register_parametrization(layer, "weight", WeightGrid(layer.weight, top))  # type: ignore[arg-type] # a tensor
        layer.input_grid = InputGrid(limits.low, limits.high, learned=number > 0)
        layer.register_forward_pre_hook(_round_input)


def _round_input(layer: Any, inputs: tuple[Any, ...]) -> Any:
    return layer.input_grid(inputs[0]) if hasattr(layer, "input_grid") else None


def remove_grids(module: nn.Module, layers: tuple[str, ...]) -> tuple[Range, ...]:
    """Replace the trained weights by the rounded ones, and return the learned ranges."""
    learned = []
    for name in layers:
        layer = module.get_submodule(name)
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
        low, high = (float(end.detach()) for end in layer.input_grid.ends())  # type: ignore[operator,union-attr] # added by `add_grids`
        learned.append(Range(low, high))
        del layer.input_grid
        layer._forward_pre_hooks.clear()
    return tuple(learned)

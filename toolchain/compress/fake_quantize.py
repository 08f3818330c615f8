"""Fake quantization: weights and inputs rounded to a grid in training; gradients pass through the rounding.

Learned step size quantization (LSQ, Esser et al., arXiv:1902.08153; for ranges with two ends LSQ+, arXiv:2004.09576).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SMALLEST = 1e-6
"""Smallest width of a range; training may shrink one to 0, which would divide by zero."""
STEPS = 255
"""Number of steps between the levels of an 8-bit activation."""


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

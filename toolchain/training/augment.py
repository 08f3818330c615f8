"""Augmentation: each glyph of a batch is moved and bent a little before it is learned."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from toolchain.training.settings import SHAPES, TrainSettings

if TYPE_CHECKING:
    from torch import Generator, Tensor


def distorted(images: Tensor, settings: TrainSettings, generator: Generator) -> Tensor:
    """Return uint8 [N, H, W]: each upright glyph rotated, scaled, sheared, shifted and bent at random, on black.

    images: uint8 [N, H, W] on the CPU; they are returned unchanged where the settings ask for no augmentation. The
    ranges are uniform. The result is rounded to uint8, so that training sees values as a scanner gives them.
    """
    import torch
    from torch.nn import functional

    if settings.augment == 0 or not any(getattr(settings, name) for name in SHAPES):
        return images
    size = [len(images), 1, *images.shape[1:]]
    grid = functional.affine_grid(_matrices(len(images), settings, generator), size, align_corners=False)
    if settings.elastic:
        strength = settings.elastic * settings.augment
        grid = grid + elastic_field(size, strength, settings.elastic_sigma, generator)
    moved = functional.grid_sample(images[:, None].float(), grid, align_corners=False)
    return moved[:, 0].round_().to(torch.uint8)


def _matrices(count: int, settings: TrainSettings, generator: Generator) -> Tensor:
    """Return float32 [count, 2, 3]: affine maps from a pixel of the result to one of the image, in half widths."""
    import torch

    def draw(half_range: float) -> Tensor:
        return (torch.rand(count, generator=generator) * 2 - 1) * (half_range * settings.augment)

    zoom, shift = settings.zoom, 2 * settings.shift
    angle, width, height = draw(math.radians(settings.rotation)), 1 + draw(zoom), 1 + draw(zoom)
    shear = draw(settings.shear)
    cosine, sine = angle.cos(), angle.sin()
    across = torch.stack([cosine * width, shear - sine * height, draw(shift)], dim=1)
    down = torch.stack([sine * width, cosine * height, draw(shift)], dim=1)
    return torch.stack([across, down], dim=1)


def elastic_field(size: list[int], strength: float, sigma: float, generator: Generator) -> Tensor:
    """Return float32 [N, H, W, 2]: random displacements across and down, in half widths and half heights.

    size: [N, 1, H, W]. As Simard, Steinkraus and Platt (ICDAR 2003): noise from -1 to 1 in each pixel, smoothed by a
    Gaussian of `sigma` pixels, times `strength`, in pixels.
    """
    import torch

    count, _, height, width = size
    noise = torch.rand(count, 2, height, width, generator=generator) * 2 - 1
    smooth = _gaussian(height, sigma) @ noise @ _gaussian(width, sigma)
    return (smooth * strength).permute(0, 2, 3, 1) * torch.tensor([2 / width, 2 / height])


def _gaussian(length: int, sigma: float) -> Tensor:
    """Return float32 [length, length], by which a product smooths an axis; beyond its ends there is nothing."""
    import torch

    distance = torch.arange(length)[:, None] - torch.arange(length)
    return torch.exp(-((distance / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi))

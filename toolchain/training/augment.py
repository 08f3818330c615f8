"""Augmentation: each glyph of a batch is moved a little before it is learned."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Generator, Tensor

# Half ranges of the augmentation at strength 1, drawn uniformly for each image. Shifts are in half image widths, so
# 0.13 is 1.8 of 28 pixels. No mirroring: `b` is not `d`.
ROTATION = math.radians(12)
SCALE = 0.13
SHEAR = 0.2
SHIFT = 0.13


def random_affine(images: Tensor, strength: float, generator: Generator) -> Tensor:
    """Return uint8 [N, H, W]: each upright glyph rotated, scaled, sheared and shifted a little, on black.

    images: uint8 [N, H, W] on the CPU. strength: factor on every range; 0 returns the images unchanged.
    The result is rounded to uint8, so that training sees values as a scanner gives them.
    """
    import torch
    from torch.nn import functional

    if strength == 0:
        return images
    grid = functional.affine_grid(
        _matrices(len(images), strength, generator), [len(images), 1, *images.shape[1:]], align_corners=False
    )
    moved = functional.grid_sample(images[:, None].float(), grid, align_corners=False)
    return moved[:, 0].round_().to(torch.uint8)


def _matrices(count: int, strength: float, generator: Generator) -> Tensor:
    """Return float32 [count, 2, 3]: affine maps from a pixel of the result to one of the image, in half widths."""
    import torch

    def draw(half_range: float) -> Tensor:
        return (torch.rand(count, generator=generator) * 2 - 1) * (half_range * strength)

    angle, width, height, shear = draw(ROTATION), 1 + draw(SCALE), 1 + draw(SCALE), draw(SHEAR)
    cosine, sine = angle.cos(), angle.sin()
    across = torch.stack([cosine * width, shear - sine * height, draw(SHIFT)], dim=1)
    down = torch.stack([sine * width, cosine * height, draw(SHIFT)], dim=1)
    return torch.stack([across, down], dim=1)

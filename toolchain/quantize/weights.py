"""Integers for weights: symmetric, with a scale for each output channel or one for the whole tensor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
STEPS = 20
"""Of Newton's method: OCTAV stands still after far fewer."""

ON_GRID = 1e-3
"""Of a step: what float32 leaves of a whole number."""


def integers(weights: Floats, bits: int, axis: int | None) -> tuple[NDArray[np.int8], Floats]:
    """Return int8 q and the scale, with axes of length 1, so that q * scale is near the weights.

    axis: of the output channels, each of which has a scale of its own; None: one scale. q keeps within
    [-(2^(bits-1) - 1), 2^(bits-1) - 1]. 8 bits cover the largest weight; where there are fewer, most weights are far
    smaller than that, and clipping the largest has the least error (`octav`). Weights that training rounded already
    (`toolchain.quantize.qat`) lie on the grid of the largest, and are found there again.
    """
    limit = 2 ** (bits - 1) - 1
    along = tuple(one for one in range(weights.ndim) if axis is None or one != axis % weights.ndim)
    largest: Floats = np.abs(weights).max(along, keepdims=True)
    steps = weights / np.where(largest, largest / np.float32(limit), np.float32(1))
    rounded_already = np.abs(steps - np.rint(steps)).max(along, keepdims=True) < ON_GRID
    clip = largest if bits >= 8 else np.where(rounded_already, largest, octav(weights, bits, largest, along))
    scale: Floats = (clip / limit).astype(np.float32)
    scale[scale == 0] = 1
    return np.clip(np.rint(weights / scale), -limit, limit).astype(np.int8), scale


def octav(weights: Floats, bits: int, largest: Floats, along: tuple[int, ...]) -> Floats:
    """Return the magnitude to clip at that has the least squared error of rounding and clipping together.

    Sakr et al., Optimal Clipping and Magnitude-aware Differentiation (arXiv:2206.06501), equation 6.
    """
    sizes = np.abs(weights)
    clip = largest / 2
    for _ in range(STEPS):
        outside = sizes > clip
        beyond, within = (part.sum(along, keepdims=True) for part in (outside, ~outside))
        clip = (sizes * outside).sum(along, keepdims=True) / np.maximum(within * 4.0**-bits / 3 + beyond, 1e-9)
    least: Floats = np.minimum(clip, largest).astype(np.float32)
    return least

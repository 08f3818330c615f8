"""Integers for weights: symmetric, with a scale for each output channel or one for the whole tensor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
STEPS = 20
"""Of Newton's method: OCTAV stands still after far fewer."""

ON_GRID = 1e-3
"""Of a step: what float32 leaves of a whole number."""
_AT_ONCE = 1 << 20
"""Weights that are rounded at once."""


def integers(
    weights: Floats, bits: int, axis: int | None, *, largest_level: int | None = None
) -> tuple[NDArray[np.int8], Floats]:
    """Return int8 q and the scale, with axes of length 1, so that q * scale is near the weights.

    axis: of the output channels, each of which has a scale of its own; None: one scale. q keeps within plus and minus
    `largest_level`, by default 2^(bits-1) - 1. 8 bits cover the largest weight; where there are fewer, most weights are
    far smaller than that, and clipping the largest has the least error (`octav`). Weights that training rounded already
    (`toolchain.compress.qat`) lie on the grid of the largest, and are found there again.
    """
    limit = 2 ** (bits - 1) - 1 if largest_level is None else largest_level
    if axis is None:
        return _rounded(weights, bits, limit, tuple(range(weights.ndim)))
    axis %= weights.ndim
    along = tuple(one for one in range(weights.ndim) if one != axis)
    values = np.empty(weights.shape, np.int8)
    scale = np.empty([size if one == axis else 1 for one, size in enumerate(weights.shape)], np.float32)
    # Each channel is rounded by itself, so a few at a time: of a large layer there would be several copies. Two at the
    # least, since NumPy adds up a single one in another order.
    parts = max(1, min(weights.size // _AT_ONCE, weights.shape[axis] // 2))
    for chosen in np.array_split(range(weights.shape[axis]), parts):
        part = (slice(None),) * axis + (slice(chosen[0], chosen[-1] + 1),)
        values[part], scale[part] = _rounded(weights[part], bits, limit, along)
    return values, scale


def _rounded(weights: Floats, bits: int, limit: int, along: tuple[int, ...]) -> tuple[NDArray[np.int8], Floats]:
    largest: Floats = np.abs(weights).max(along, keepdims=True)
    clip = largest
    if bits < 8:
        steps = weights / np.where(largest, largest / np.float32(limit), np.float32(1))
        rounded_already = np.abs(steps - np.rint(steps)).max(along, keepdims=True) < ON_GRID
        clip = np.where(rounded_already, largest, octav(weights, bits, largest, along))
    scale: Floats = (clip / limit).astype(np.float32)
    # Below, float32 holds no scale exactly enough.
    scale[scale < np.finfo(np.float32).tiny] = 1
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

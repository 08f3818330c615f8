"""Integers for weights: symmetric, with a scale for each output channel or one for the whole tensor.

`wider` gives a channel a larger scale where its bias needs one. A static file adds biases as integers in units of input
scale times weight scale. Where a channel's weights are tiny and its bias is not, as behind a batch norm that nearly
switched the channel off, that integer saturates or wraps.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
OCTAV_STEPS = 20
"""Steps of Newton's method; it converges in far fewer."""
ON_GRID = 1e-3
"""Weights are rounded already when they lie this close to a level, as a share of a step: float32 is no more exact."""
_AT_ONCE = 1 << 20
"""Number of weights that are rounded at once."""
LARGEST_BIAS = 2**26
"""Largest integer of a bias. 32 bits hold 32 times as much, but the products of the layer are added to it, and the
kernels of XNNPACK for 4 bits compute 16 times that sum. What wider scales cost stays below a millionth of the bias.
"""


def integers(
    weights: Floats, bits: int, axis: int | None, *, largest_level: int | None = None
) -> tuple[NDArray[np.int8], Floats]:
    """Return int8 integers and float32 scales, with axes of length 1, so that integers * scales is near the weights.

    axis: that of the output channels, each of which gets a scale of its own; None: one scale. The integers lie between
    plus and minus `largest_level`, by default 2^(bits-1) - 1. With 8 bits the largest weight gets the last level. With
    fewer, most weights are far smaller than the largest, and clipping it gives the least error (`octav`). Weights that
    training has rounded (`toolchain.compress.qat`) lie on the levels up to the largest, and keep them.
    """
    limit = 2 ** (bits - 1) - 1 if largest_level is None else largest_level
    if axis is None:
        return _rounded(weights, bits, limit, tuple(range(weights.ndim)))
    axis %= weights.ndim
    along = tuple(other for other in range(weights.ndim) if other != axis)
    values = np.empty(weights.shape, np.int8)
    scale = np.empty([size if index == axis else 1 for index, size in enumerate(weights.shape)], np.float32)
    # A few channels at a time, because rounding makes several copies. At least two, because NumPy adds up a single one
    # in another order.
    parts = max(1, min(weights.size // _AT_ONCE, weights.shape[axis] // 2))
    for channels in np.array_split(range(weights.shape[axis]), parts):
        part = (slice(None),) * axis + (slice(channels[0], channels[-1] + 1),)
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
    # A smaller scale has too few bits in float32.
    scale[scale < np.finfo(np.float32).tiny] = 1
    return np.clip(np.rint(weights / scale), -limit, limit).astype(np.int8), scale


def octav(weights: Floats, bits: int, largest: Floats, along: tuple[int, ...]) -> Floats:
    """Return the magnitude at which clipping and rounding together have the least squared error.

    Sakr et al., Optimal Clipping and Magnitude-aware Differentiation (arXiv:2206.06501), equation 6.
    """
    magnitudes = np.abs(weights)
    clip = largest / 2
    for _ in range(OCTAV_STEPS):
        outside = magnitudes > clip
        beyond, within = (part.sum(along, keepdims=True) for part in (outside, ~outside))
        clip = (magnitudes * outside).sum(along, keepdims=True) / np.maximum(within * 4.0**-bits / 3 + beyond, 1e-9)
    least: Floats = np.minimum(clip, largest).astype(np.float32)
    return least


class Weight(NamedTuple):
    """Integers and their scale: a number for each channel along `axis`, or a single one."""

    integers: NDArray[np.int8]
    scale: Floats
    axis: int


def wider(weight: Weight, floats: Floats, bias: Floats, unit: float) -> Weight | None:
    """Return the weight with the scales that its bias needs, None where the bias fits.

    floats: the weight in float. unit: the scale of the layer's input.
    """
    # Groups of a ConvTranspose share the scales of their channels, and one scale is shared by all.
    least = np.abs(bias.astype(np.float64)).reshape(-1, weight.scale.size).max(axis=0) / LARGEST_BIAS / unit
    if (least <= weight.scale.reshape(-1)).all():
        return None
    scale = np.maximum(weight.scale, least.reshape(weight.scale.shape)).astype(np.float32)
    shape = [1] * floats.ndim
    shape[weight.axis] = scale.size
    limit = np.abs(weight.integers.astype(np.int16)).max()
    rounded = np.clip(np.rint(floats / scale.reshape(shape)), -limit, limit).astype(np.int8)
    same = (scale == weight.scale).reshape(shape)
    return Weight(np.where(same, weight.integers, rounded), scale, weight.axis)

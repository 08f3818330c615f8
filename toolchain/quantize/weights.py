"""Integers for weights: symmetric, with a scale for each output channel or one for the whole tensor."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
SHRUNK = np.linspace(1.0, 0.5, 51, dtype=np.float32)
"""Of the largest weight: the ranges that `least_error` tries."""


def integers(weights: Floats, bits: int, axis: int | None) -> tuple[NDArray[np.int8], Floats]:
    """Return int8 q and the scale, of shape [..., 1], so that q * scale is near the weights.

    axis: of the output channels, each of which has a scale of its own; None: one scale. q keeps within
    [-(2^(bits-1) - 1), 2^(bits-1) - 1]. 8 bits cover the largest weight; where there are 4, the range that has the
    least squared error does better than that, since most weights are far smaller.
    """
    limit = 2 ** (bits - 1) - 1
    along = tuple(one for one in range(weights.ndim) if axis is None or one != axis % weights.ndim)
    scale: Floats = np.abs(weights).max(along, keepdims=True) / np.float32(limit)
    scale[scale == 0] = 1
    if bits < 8:
        scale = least_error(weights, scale, limit, along)
    return _rounded(weights, scale, limit).astype(np.int8), scale


def least_error(weights: Floats, scale: Floats, limit: int, along: Iterable[int]) -> Floats:
    """Return, of `scale` shrunk by each of SHRUNK, what rounds and clips with the least squared error."""
    along = tuple(along)
    tried = [scale * share for share in SHRUNK]
    errors = [((_rounded(weights, one, limit) * one - weights) ** 2).sum(along, keepdims=True) for one in tried]
    best = np.argmin(errors, axis=0)
    chosen: Floats = np.take_along_axis(np.stack(tried), best[None], axis=0)[0]
    return chosen


def _rounded(weights: Floats, scale: Floats, limit: int) -> Floats:
    rounded: Floats = np.clip(np.rint(weights / scale), -limit, limit)
    return rounded

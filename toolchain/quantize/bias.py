"""Empirical bias correction (Nagel et al., "Data-Free Quantization", arXiv:1906.04721, section 4.2 and appendix D).

Rounded weights and clipped activations shift the mean of a layer's output; over a calibration set that shift can be
measured, and a bias can take it back. Layers go in execution order, so that each corrects what its predecessors left.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from toolchain.core.errors import StageError
from toolchain.formats.activations import Values
from toolchain.quantize.float_file import BiasedLayer, FloatFile
from toolchain.quantize.ranges import Ranges
from toolchain.quantize.step import Quantize

LEAST_ACTIVE = 0.05
"""Channels that are active less often keep their bias: too little is seen of them."""


def correct_biases(source: FloatFile, step: Quantize, ranges: Ranges, fed: NDArray[np.float32]) -> str:
    """Move the biases of the open file so that each layer's mean output is the float file's; return a line on it.

    The mean is taken after the activation, where both files show it, so that a shift of the bias counts only for the
    share of outputs that are not saturated; the move is divided by it. Raises StageError when no bias can be moved.
    """
    layers = source.layers()
    if not layers:
        raise StageError(f"{source.artifact.path.name} has no layer whose bias can be corrected; leave that out")
    # The file's own input and output types do not matter to what happens inside.
    step = step.model_copy(update={"integer_io": False})
    names = [layer.output for layer in layers]
    exact = _means(layers, source.values(names, fed))
    for layer in layers:
        mean, active = exact[layer]
        now, _ = _means([layer], source.quantized_values(step, ranges, [layer.output], fed))[layer]
        move = np.where(active >= LEAST_ACTIVE, (mean - now) / np.maximum(active, LEAST_ACTIVE), 0)
        source.move(layer, move.astype(np.float32))
    return f"corrected the biases of {len(layers)} of {source.weighted()} layers"


def _means(
    layers: list[BiasedLayer], read: Iterable[Values]
) -> dict[BiasedLayer, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return of each layer, per channel, the mean output and the share of outputs that are not saturated."""
    sums: dict[BiasedLayer, list[NDArray[np.float64]]] = {layer: [] for layer in layers}
    for values in read:
        for layer in layers:
            channels = np.moveaxis(values[layer.output].astype(np.float64), layer.axis, 0)
            channels = channels.reshape(len(channels), -1)
            active = (channels > layer.low) & (channels < layer.high)
            sums[layer].append(np.stack([channels.mean(axis=1), active.mean(axis=1)]))
    means = {layer: np.mean(parts, axis=0) for layer, parts in sums.items()}
    return {layer: (mean, active) for layer, (mean, active) in means.items()}

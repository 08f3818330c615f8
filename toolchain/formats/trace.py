"""Trace: a model file that is opened so that the result of every layer can be read."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from calibration.sample import CalibrationSet
from targets.artifact import Artifact
from toolchain.formats.graph import Graph

Values = dict[str, NDArray[np.float32]]
"""Layer or tensor -> its values, float32 [N, ...]; integers are dequantized."""


class Trace(Protocol):
    """A model file whose layers' results can be read."""

    graph: Graph

    @property
    def fixed(self) -> int:
        """Return the batch that the file fixes, 0 where it takes any."""
        ...

    @property
    def batch(self) -> int:
        """Return how many images to run at once."""
        ...

    def whole(self, pixels: NDArray[Any]) -> Values:
        """Return the result of every layer when the file runs on `pixels`, preprocessed as it wants them."""
        ...

    def alone(self, pixels: NDArray[Any], exact: Values) -> Values:
        """Return the result of every layer when those before it return `exact`, rounded as the file rounds it."""
        ...


def rounded(graph: Graph, exact: Values) -> Values:
    """Return the layers' results by tensor, rounded to the steps of each quantized tensor and clipped to its range."""
    results = {}
    for layer in graph.layers:
        values, codec = exact[layer.name], graph.codecs.get(layer.result)
        results[layer.result] = codec.decode(codec.encode(values)).reshape(values.shape) if codec else values
    return results


def feeds(artifact: Artifact, images: CalibrationSet) -> NDArray[np.float32]:
    """Return the file's input for each image, float32 [N, batch, ...]; in a fixed batch the image is repeated."""
    batch, *rest = artifact.inputs[0].shape
    pixels = artifact.preprocess.apply(images.images).reshape(-1, 1, *rest)
    return np.repeat(pixels, max(1, batch), axis=1)

"""Trace: what the layers of a file give out, image by image, in either format."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from calibration.sample import CalibrationSet
from targets.artifact import Artifact
from toolchain.formats.graph import Graph

Values = dict[str, NDArray[np.float32]]
"""The result of each layer, by its name, float32 [N, ...]; integers are dequantized."""


class Trace(Protocol):
    """A file that is opened so that every layer's result can be read."""

    graph: Graph

    @property
    def fixed(self) -> int:
        """Return the batch that the file fixes, 0 where any is taken."""
        ...

    @property
    def batch(self) -> int:
        """Return how many images are given at once."""
        ...

    def whole(self, pixels: NDArray[Any]) -> Values:
        """Return the results of an inference."""
        ...

    def alone(self, pixels: NDArray[Any], exact: Values) -> Values:
        """Return the results of each layer when every layer before it had given `exact`, rounded as the file rounds."""
        ...


def rounded(graph: Graph, exact: Values) -> Values:
    """Return results by tensor, as a quantized tensor holds them: rounded to its steps and cut off at its ends."""
    found = {}
    for layer in graph.layers:
        values, port = exact[layer.name], graph.ports.get(layer.result)
        found[layer.result] = port.decode(port.encode(values)).reshape(values.shape) if port else values
    return found


def feeds(artifact: Artifact, images: CalibrationSet) -> NDArray[np.float32]:
    """Return float32 [N, batch, ...]: what the file is fed with for each image, which fills a batch that is fixed."""
    batch, *rest = artifact.inputs[0].shape
    pixels = artifact.preprocess.apply(images.images).reshape(-1, 1, *rest)
    return np.repeat(pixels, max(1, batch), axis=1)

"""FloatFile: an open float file of any format, whose tensors can be read and whose biases can be changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from targets.artifact import Artifact
from toolchain.formats.trace import Values
from toolchain.quantize.ranges import Ranges
from toolchain.quantize.step import Quantize

NO_VALUE = np.float32(-1e38)
"""A pad or mask of this or less, such as minus infinity, never counts in a maximum or softmax over it."""


@dataclass(frozen=True)
class BiasedLayer:
    """A convolution or matrix with a bias. output: the tensor after its activation. axis: of its channels.

    low, high: the values at which the activation saturates: 0 and infinity for a ReLU.
    """

    output: str
    axis: int
    low: float = -np.inf
    high: float = np.inf


class FloatFile(Protocol):
    """An open float file."""

    artifact: Artifact

    def tensors(self) -> list[str]:
        """Return the names of the computed float tensors, in execution order, the input first."""

    def origins(self) -> dict[str, str]:
        """Return the layer and operator that compute each tensor, for tensors whose name does not say it."""

    def layers(self) -> list[BiasedLayer]:
        """Return the layers whose bias can be changed, in execution order."""

    def weighted(self) -> int:
        """Return the number of layers with weights."""

    def inputs(self) -> list[tuple[str, ...]]:
        """Return the input of each layer with weights, in execution order: the tensor, and those it is a view of."""

    def values(self, names: Sequence[str], fed: NDArray[np.float32]) -> Iterator[Values]:
        """Yield the values of tensors for each image of `fed` (`activations.feeds`)."""

    def quantized_values(
        self, step: Quantize, ranges: Ranges, names: Sequence[str], fed: NDArray[np.float32]
    ) -> Iterator[Values]:
        """Quantize the file in its current state and yield the values of the same tensors there."""

    def move(self, layer: BiasedLayer, by: NDArray[np.float32]) -> None:
        """Add `by` [channels] to the layer's bias."""

    def content(self) -> bytes:
        """Return the float file in its current state."""


def without_masks(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the values with the smallest real one in place of those of NO_VALUE or less."""
    smallest = values[values > NO_VALUE].min(initial=0)
    raised: NDArray[np.float32] = np.maximum(values, smallest)
    return raised

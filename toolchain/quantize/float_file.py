"""FloatFile: an open float file whose tensors can be read and whose biases can be moved, the same for every format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from targets.artifact import Artifact
from toolchain.formats.activations import Values
from toolchain.quantize.ranges import Ranges
from toolchain.quantize.step import Quantize

NOTHING = np.float32(-1e38)
"""A pad or mask of this or less, minus infinity too, is no value where a maximum or softmax is taken over it."""


@dataclass(frozen=True)
class BiasedLayer:
    """A convolution or matrix with a bias. output: the tensor after its activation; axis: where channels stand in it.

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
        """Return the float tensors that are computed, in execution order, the input first."""

    def origins(self) -> dict[str, str]:
        """Return what computes each tensor, layer and operator, where the tensor's own name does not tell."""

    def layers(self) -> list[BiasedLayer]:
        """Return the layers whose bias can be moved, in execution order."""

    def weighted(self) -> int:
        """Return how many layers have weights."""

    def inputs(self) -> list[tuple[str, ...]]:
        """Return what enters each layer with weights, in execution order: the tensor, and those it is a view of."""

    def values(self, names: Sequence[str], fed: NDArray[np.float32]) -> Iterator[Values]:
        """Yield what tensors hold for each of `fed`."""

    def quantized_values(
        self, step: Quantize, ranges: Ranges, names: Sequence[str], fed: NDArray[np.float32]
    ) -> Iterator[Values]:
        """Quantize the file as it stands now and yield what the same tensors hold there."""

    def move(self, layer: BiasedLayer, by: NDArray[np.float32]) -> None:
        """Add `by` [channels] to the layer's bias."""

    def content(self) -> bytes:
        """Return the float file as it stands now."""


def without_masks(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the values with the least of them in place of NOTHING."""
    least = values[values > NOTHING].min(initial=0)
    kept: NDArray[np.float32] = np.maximum(values, least)
    return kept

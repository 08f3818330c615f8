"""Port: an input or output of a file, and how its integers stand for numbers."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from targets.artifact import Artifact, TensorSpec
from targets.errors import RunFailed


@dataclass(frozen=True)
class Port:
    """A tensor at the border of a file. The first axis counts images; -1 is dynamic."""

    spec: TensorSpec

    @property
    def scale(self) -> float:
        """Return what a step of its integers is worth; 1 where they stand for themselves."""
        return 1.0 if self.spec.scale is None else self.spec.scale

    @property
    def zero_point(self) -> int:
        """Return the integer that stands for 0."""
        return self.spec.zero_point or 0

    @property
    def batch(self) -> int:
        """Return the number of images that the file fixes, or 0 where its batch is dynamic."""
        return max(self.spec.shape[0], 0) if self.spec.shape else 0

    def encode(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return float32 [N, ...] in the tensor's own dtype and shape [N, ...]; uint8 are its integers already."""
        dtype = np.dtype(self.spec.dtype)
        inner = self.spec.shape[1:]
        shaped = values if -1 in inner else values.reshape(len(values), *inner)
        if dtype.kind == "f":
            return shaped.astype(dtype, copy=False)
        if values.dtype == dtype:
            return shaped
        limits = np.iinfo(dtype)
        steps = np.rint(shaped / np.float32(self.scale)) + self.zero_point
        quantized: NDArray[Any] = np.clip(steps, limits.min, limits.max).astype(dtype)
        return quantized

    def decode(self, raw: NDArray[Any]) -> NDArray[np.float32]:
        """Return a tensor of the file as float32."""
        if raw.dtype.kind == "f":
            return raw.astype(np.float32, copy=False)
        return (raw.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)


def image_port(artifact: Artifact, inputs: list[Port]) -> Port:
    """Return the one input that takes 28x28 glyphs; raises RunFailed where there is none or more than one."""
    if len(inputs) != 1:
        names = ", ".join(port.spec.name for port in inputs)
        raise RunFailed(f"{artifact.path}: needs one input, has {len(inputs)} ({names}); export the model alone")
    inner = inputs[0].spec.shape[1:]
    fits = len(inner) == 3 if -1 in inner else prod(inner) == 28 * 28 and bool(inner)
    if not fits:
        shape = "x".join("?" if axis < 0 else str(axis) for axis in inputs[0].spec.shape)
        raise RunFailed(f"{artifact.path}: takes {shape}, not one-channel 28x28 glyphs; give a model of those")
    return inputs[0]


def logits_port(artifact: Artifact, outputs: list[Port]) -> int:
    """Return the index of the output that is as wide as the classes; raises RunFailed naming both where none is."""
    expected = artifact.preprocess.label_offset + len(artifact.classes)
    widths = [prod(port.spec.shape[1:]) if -1 not in port.spec.shape[1:] else -1 for port in outputs]
    for wanted in (expected, -1):
        if wanted in widths:
            return widths.index(wanted)
    raise RunFailed(
        f"{artifact.path}: its outputs are {widths} wide, but {len(artifact.classes)} classes with label offset "
        f"{artifact.preprocess.label_offset} need {expected}; name the right data set or label offset"
    )

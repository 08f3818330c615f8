"""Calibrate: the range of every tensor of a float artifact, from images, by the same rules in every format.

Empirical bias correction (Nagel et al., "Data-Free Quantization", arXiv:1906.04721, section 4.2, appendix D): rounded
weights and clipped activations shift the mean of a layer's output; a change of the bias cancels the shift that is
measured on the calibration set. Layers are corrected in execution order, so that each one corrects what remains of the
shifts before it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from calibration.sample import CalibrationSet
from targets.artifact import Artifact
from targets.errors import translated
from toolchain.checkpoint.float_model import Range
from toolchain.core.converter_log import output_to_log
from toolchain.core.errors import StageError
from toolchain.formats.graph import Values, input_batches
from toolchain.quantize.ranges import Ranges, collect_statistics, read_ranges
from toolchain.quantize.schemes import QUANTIZERS
from toolchain.quantize.step import Quantize

LEAST_ACTIVE = 0.05
"""Channels that are active in a smaller share of the outputs keep their bias: their shift cannot be measured."""
NO_VALUE = np.float32(-1e38)
"""A pad or mask of this or less, such as minus infinity, never counts in a maximum or softmax over it."""


@dataclass(frozen=True)
class BiasedLayer:
    """A convolution or dense layer with a bias. output: the tensor after its activation. axis: of its channels.

    low, high: the values at which the activation saturates: 0 and infinity for a ReLU.
    """

    output: str
    axis: int
    low: float = -np.inf
    high: float = np.inf


class FloatFile(Protocol):
    """An open float file of any format, whose tensors can be read and whose biases can be changed.

    layers: those whose bias is a constant that no other layer reads, in execution order.
    """

    artifact: Artifact
    layers: Mapping[BiasedLayer, Any]

    def tensors(self) -> list[str]:
        """Return the names of the computed float tensors, in execution order, the input first."""

    def origins(self) -> dict[str, str]:
        """Return the layer and operator that compute each tensor, for tensors whose name does not say it."""
        return {}

    def inputs(self) -> list[tuple[str, ...]]:
        """Return the input of each layer with weights, in execution order: the tensor, and those it is a view of."""

    def masked(self) -> set[str]:
        """Return the tensors in which masks and pads take out values."""

    def run(self, names: Sequence[str], pixels: NDArray[np.float32]) -> Iterator[Values]:
        """Yield what the tensors hold for each image of `pixels` (`toolchain.formats.graph.input_batches`)."""

    def values(self, names: Sequence[str], pixels: NDArray[np.float32]) -> Iterator[Values]:
        """Yield the same, but with the smallest real value of a tensor in place of its masked ones."""
        masked = self.masked()
        for tensors in self.run(names, pixels):
            yield {name: _without_masks(values) if name in masked else values for name, values in tensors.items()}

    def quantized_values(
        self, step: Quantize, ranges: Ranges, names: Sequence[str], pixels: NDArray[np.float32]
    ) -> Iterator[Values]:
        """Quantize the file in its current state and yield the values of the same tensors there."""

    def add_to_bias(self, layer: BiasedLayer, change: NDArray[np.float32]) -> None:
        """Add `change` [channels] to the layer's bias."""

    def content(self) -> bytes:
        """Return the float file in its current state."""


def _without_masks(values: NDArray[np.float32]) -> NDArray[np.float32]:
    smallest = values[values > NO_VALUE].min(initial=0)
    raised: NDArray[np.float32] = np.maximum(values, smallest)
    return raised


@dataclass(frozen=True)
class Calibrated:
    """A float file that is ready to be quantized. source: the file, a copy where its biases were corrected."""

    source: Artifact
    ranges: Ranges | None = None
    notes: tuple[str, ...] = ()


def calibrated(
    artifact: Artifact,
    step: Quantize,
    images: CalibrationSet | None,
    folder: Path,
    log: Path | None = None,
    *,
    learned: Sequence[Range] = (),
) -> Calibrated:
    """Find the ranges of a float artifact on `images`, or read and check those of the step; correct biases if asked to.

    folder: takes the copy with corrected biases. learned: ranges of each layer's input from training
    (`FloatModel.input_ranges`), in place of those on the images. Raises StageError when needed images are missing, a
    tensor is not finite, or the ranges belong to another file.
    """
    if images is None and step.needs_images:
        raise StageError(f"{step.scheme} takes its ranges from a calibration set; give --data")
    name = artifact.path.name
    with (
        output_to_log(log) as log_file,
        translated(
            lambda why: StageError(
                f"{name}: the values of its tensors cannot be read ({why}); details are in {log_file}"
            )
        ),
        tempfile.TemporaryDirectory() as working_folder,
    ):
        file: FloatFile = QUANTIZERS[artifact.format].open(artifact, Path(working_folder))
        if step.ranges:
            ranges = read_ranges(Path(step.ranges)).belong_to(artifact, file.tensors(), step.ranges)
        else:
            ranges = _observed(file, step, images).with_learned(_by_tensor(file, learned))
        if not step.bias_correction:
            return Calibrated(artifact, ranges, _notes(ranges, step))
        assert images is not None, "bias correction needs images, which is checked above"
        note = correct_biases(file, step, ranges, input_batches(artifact, images))
        corrected = replace(artifact, path=folder / name)
        corrected.path.write_bytes(file.content())
        return Calibrated(corrected, ranges, (*_notes(ranges, step), note))


def _observed(file: FloatFile, step: Quantize, images: CalibrationSet | None) -> Ranges:
    assert images is not None, "ranges need images, which is checked above"
    names, pixels = file.tensors(), input_batches(file.artifact, images)
    collected = collect_statistics(lambda: file.values(names, pixels), file.artifact.path.name)
    statistics = {name: collected[name] for name in names}
    return Ranges.choose(file.artifact, step, statistics, images.facts(), file.origins())


def _by_tensor(file: FloatFile, learned: Sequence[Range]) -> dict[str, Range]:
    if not learned:
        return {}
    inputs = file.inputs()
    if len(inputs) != len(learned):
        raise StageError(
            f"{file.artifact.path.name} has {len(inputs)} layers with weights, but training learned the ranges of "
            f"{len(learned)}; leave the qat step out"
        )
    return {name: limits for names, limits in zip(inputs, learned, strict=True) for name in names}


def _notes(ranges: Ranges, step: Quantize) -> tuple[str, ...]:
    percentile = f"{ranges.percentile:g} " if ranges.percentile else ""
    origin = f", from {Path(step.ranges).name}" if step.ranges else ""
    return (f"ranges: {percentile}{ranges.method}{origin}",) if origin or ranges.method != "min-max" else ()


def correct_biases(file: FloatFile, step: Quantize, ranges: Ranges, pixels: NDArray[np.float32]) -> str:
    """Change the biases of the open file so that the quantized file has its mean output in each layer; return a note.

    The mean is that after the activation, a tensor that both files have. There a change of the bias moves only the
    outputs that are not saturated, so the shift is divided by their share. Raises StageError when the file has no bias
    that can be changed.
    """
    layers = list(file.layers)
    if not layers:
        raise StageError(
            f"{file.artifact.path.name} has no layer whose bias can be corrected; leave the bias correction out"
        )
    # The types of the file's inputs and outputs do not change the values inside.
    step = step.model_copy(update={"integer_io": False})
    names = [layer.output for layer in layers]
    exact = _means(layers, file.values(names, pixels))
    for layer in layers:
        mean, active = exact[layer]
        quantized, _ = _means([layer], file.quantized_values(step, ranges, [layer.output], pixels))[layer]
        change = np.where(active >= LEAST_ACTIVE, (mean - quantized) / np.maximum(active, LEAST_ACTIVE), 0)
        file.add_to_bias(layer, change.astype(np.float32))
    return f"corrected the biases of {len(layers)} of {len(file.inputs())} layers"


def _means(
    layers: list[BiasedLayer], outputs: Iterable[Values]
) -> dict[BiasedLayer, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return for each layer, per channel, the mean output and the share of outputs that are not saturated."""
    parts: dict[BiasedLayer, list[NDArray[np.float64]]] = {layer: [] for layer in layers}
    for values in outputs:
        for layer in layers:
            channels = np.moveaxis(values[layer.output].astype(np.float64), layer.axis, 0)
            channels = channels.reshape(len(channels), -1)
            active = (channels > layer.low) & (channels < layer.high)
            parts[layer].append(np.stack([channels.mean(axis=1), active.mean(axis=1)]))
    means = {layer: np.mean(images, axis=0) for layer, images in parts.items()}
    return {layer: (mean, active) for layer, (mean, active) in means.items()}

"""Calibrate: the range of every tensor of a float artifact, from images, by the same rules in every format.

Empirical bias correction (Nagel et al., "Data-Free Quantization", arXiv:1906.04721, section 4.2, appendix D): rounded
weights and clipped activations shift the mean of a layer's output; the bias can take back the shift that a calibration
set shows. Layers are corrected in execution order, so that each corrects what its predecessors left.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.sample import CalibrationSet
from targets.artifact import Artifact
from targets.errors import translated
from toolchain.checkpoint.float_model import Range
from toolchain.core.converter_log import output_to_log
from toolchain.core.errors import StageError
from toolchain.formats.trace import Values, feeds
from toolchain.quantize.clipping import collect_statistics
from toolchain.quantize.float_file import BiasedLayer, FloatFile
from toolchain.quantize.ranges import Ranges, read_ranges
from toolchain.quantize.schemes import QUANTIZERS
from toolchain.quantize.step import Quantize

LEAST_ACTIVE = 0.05
"""Channels that are active less often keep their bias: the shift cannot be measured."""


@dataclass(frozen=True)
class Calibrated:
    """The result of a calibration. content: the float file, where its biases were moved. notes: one line each."""

    ranges: Ranges | None = None
    content: bytes | None = None
    notes: tuple[str, ...] = ()


def calibrated(
    artifact: Artifact,
    step: Quantize,
    images: CalibrationSet | None,
    log: Path | None = None,
    *,
    saturates: bool = True,
    learned: Sequence[Range] = (),
) -> Calibrated:
    """Find the ranges of a float artifact on `images`, or read and check the step's; correct biases if it says so.

    learned: ranges of each layer's input from training (`FloatModel.input_ranges`), in place of those on the images.
    Raises StageError when needed images are missing, a tensor is not finite, or the ranges belong to another file.
    """
    if images is None and step.needs_images:
        raise StageError(f"{step.scheme} takes its ranges from a calibration set; give --data")
    name = artifact.path.name
    with (
        output_to_log(log) as log_file,
        translated(
            lambda why: StageError(f"{name}: its tensors cannot be observed ({why}); all of it is in {log_file}")
        ),
        tempfile.TemporaryDirectory() as folder,
    ):
        source: FloatFile = QUANTIZERS[artifact.format].opener()(artifact, Path(folder))
        if step.ranges:
            ranges = read_ranges(Path(step.ranges)).belong_to(artifact, source.tensors(), step.ranges)
        else:
            ranges = _observed(source, step, images).with_learned(_by_tensor(source, learned))
        if not step.bias_correction:
            return Calibrated(ranges, notes=_notes(ranges, step))
        assert images is not None, "bias correction needs images, which is checked above"
        # The shift of the mean depends on how the weights are rounded.
        rounded = step.model_copy(update={"reduce_range": step.reduced(saturates=saturates)})
        note = correct_biases(source, rounded, ranges, feeds(artifact, images))
        return Calibrated(ranges, source.content(), (*_notes(ranges, step), note))


def _observed(source: FloatFile, step: Quantize, images: CalibrationSet | None) -> Ranges:
    assert images is not None, "ranges need images, which is checked above"
    names, inputs = source.tensors(), feeds(source.artifact, images)
    collected = collect_statistics(lambda: source.values(names, inputs), source.artifact.path.name)
    statistics = {name: collected[name] for name in names}
    return Ranges.choose(source.artifact, step, statistics, images.facts(), source.origins())


def _by_tensor(source: FloatFile, learned: Sequence[Range]) -> dict[str, Range]:
    if not learned:
        return {}
    inputs = source.inputs()
    if len(inputs) != len(learned):
        raise StageError(
            f"{source.artifact.path.name} has {len(inputs)} layers with weights, but training learned the ranges of "
            f"{len(learned)}; leave the qat step out"
        )
    return {name: limits for names, limits in zip(inputs, learned, strict=True) for name in names}


def _notes(ranges: Ranges, step: Quantize) -> tuple[str, ...]:
    percentile = f"{ranges.percentile:g} " if ranges.percentile else ""
    origin = f", from {Path(step.ranges).name}" if step.ranges else ""
    return (f"ranges: {percentile}{ranges.method}{origin}",) if origin or ranges.method != "min-max" else ()


def correct_biases(source: FloatFile, step: Quantize, ranges: Ranges, inputs: NDArray[np.float32]) -> str:
    """Move the biases of the open file so that each layer's mean output is the float file's; return a note on it.

    The mean is taken after the activation, the tensor that both files have. There a shift of the bias moves only the
    outputs that are not saturated, so the shift is divided by their share. Raises StageError when no bias can be moved.
    """
    layers = source.layers()
    if not layers:
        raise StageError(
            f"{source.artifact.path.name} has no layer whose bias can be corrected; leave the bias correction out"
        )
    # The types of the file's inputs and outputs do not change the values inside.
    step = step.model_copy(update={"integer_io": False})
    names = [layer.output for layer in layers]
    exact = _means(layers, source.values(names, inputs))
    for layer in layers:
        mean, active = exact[layer]
        quantized, _ = _means([layer], source.quantized_values(step, ranges, [layer.output], inputs))[layer]
        move = np.where(active >= LEAST_ACTIVE, (mean - quantized) / np.maximum(active, LEAST_ACTIVE), 0)
        source.move(layer, move.astype(np.float32))
    return f"corrected the biases of {len(layers)} of {source.weighted()} layers"


def _means(
    layers: list[BiasedLayer], outputs: Iterable[Values]
) -> dict[BiasedLayer, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return for each layer, per channel, the mean output and the share of outputs that are not saturated."""
    sums: dict[BiasedLayer, list[NDArray[np.float64]]] = {layer: [] for layer in layers}
    for values in outputs:
        for layer in layers:
            channels = np.moveaxis(values[layer.output].astype(np.float64), layer.axis, 0)
            channels = channels.reshape(len(channels), -1)
            active = (channels > layer.low) & (channels < layer.high)
            sums[layer].append(np.stack([channels.mean(axis=1), active.mean(axis=1)]))
    means = {layer: np.mean(parts, axis=0) for layer, parts in sums.items()}
    return {layer: (mean, active) for layer, (mean, active) in means.items()}

"""Calibrate: from a float artifact and images to the range of every tensor, by one rule for every format."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from calibration.sample import CalibrationSet
from targets.artifact import Artifact
from targets.errors import translated
from toolchain.checkpoint.float_model import Range
from toolchain.core.converter_log import output_to_log
from toolchain.core.errors import StageError
from toolchain.formats.activations import feeds
from toolchain.quantize.bias import correct_biases
from toolchain.quantize.float_file import FloatFile
from toolchain.quantize.ranges import Ranges, read_ranges
from toolchain.quantize.step import Quantize
from toolchain.quantize.tensor_statistics import collect_statistics


@dataclass(frozen=True)
class Calibrated:
    """What a static scheme gets: ranges, and the float file again where its biases were moved; notes, a line each."""

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
    """Find the ranges of a float artifact on `images`, or read and check the step's; correct biases where it says so.

    learned: what training learned of each layer's input (`FloatModel.input_ranges`); it stands before what is seen.

    Raises StageError when images are needed and not given, a tensor is not finite, or the ranges are another file's.
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
        source = open_float_file(artifact, Path(folder))
        if step.ranges:
            kept = read_ranges(Path(step.ranges))
            ranges = kept.belong_to(artifact, source.tensors(), step.ranges)
        else:
            ranges = _observed(source, step, images).with_learned(_by_tensor(source, learned))
        if not step.bias_correction:
            return Calibrated(ranges, notes=_notes(ranges, step))
        assert images is not None, "bias correction needs images, which is checked above"
        # What a bias has to mend depends on how the weights are rounded.
        rounded = step.model_copy(update={"reduce_range": step.reduced(saturates=saturates)})
        said = correct_biases(source, rounded, ranges, feeds(artifact, images))
        return Calibrated(ranges, source.content(), (*_notes(ranges, step), said))


def open_float_file(artifact: Artifact, folder: Path) -> FloatFile:
    """Open a float artifact of either format; raises StageError or CheckpointError on one that is quantized already.

    folder: has room for another form of the file, as long as it is used.
    """
    if artifact.format == "onnx":
        from toolchain.quantize.float_onnx import FloatOnnx

        return FloatOnnx(artifact, folder)
    from toolchain.quantize.float_tflite import FloatTflite

    return FloatTflite(artifact)


def _observed(source: FloatFile, step: Quantize, images: CalibrationSet | None) -> Ranges:
    assert images is not None, "ranges need images, which is checked above"
    names, fed = source.tensors(), feeds(source.artifact, images)
    seen = collect_statistics(lambda: source.values(names, fed), source.artifact.path.name)
    return Ranges.choose(source.artifact, step, {name: seen[name] for name in names}, images.facts(), source.origins())


def _by_tensor(source: FloatFile, learned: Sequence[Range]) -> dict[str, Range]:
    if not learned:
        return {}
    inputs = source.inputs()
    if len(inputs) != len(learned):
        raise StageError(
            f"{source.artifact.path.name} has {len(inputs)} layers with weights, but training learned the ranges of "
            f"{len(learned)}; leave the qat step out"
        )
    return {name: one for names, one in zip(inputs, learned, strict=True) for name in names}


def _notes(ranges: Ranges, step: Quantize) -> tuple[str, ...]:
    kept = f"{ranges.percentile:g} " if ranges.percentile else ""
    where = f", from {Path(step.ranges).name}" if step.ranges else ""
    return (f"ranges: {kept}{ranges.method}{where}",) if where or ranges.method != "min-max" else ()

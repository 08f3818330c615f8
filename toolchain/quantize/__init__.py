"""Float Artifact and CalibrationSet to a quantized Artifact."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from calibration.dataset import Images
from calibration.sample import CalibrationSet
from targets.artifact import Artifact
from toolchain.checkpoint.float_model import Range
from toolchain.core.errors import StageError
from toolchain.formats.uint8_input import PixelInput
from toolchain.formats.write_artifact import Origin, write_artifact
from toolchain.quantize.calibrate import Calibrated, calibrated
from toolchain.quantize.fidelity import COMPARED, fidelity
from toolchain.quantize.remaining_float import left_in_float, weights_left
from toolchain.quantize.step import Quantize, refusal
from toolchain.quantize.tflite_refusals import refusals_explained

FULL_RANGE = "weights of 8 bits: may be read otherwise on x86 processors without VNNI, whose products saturate"
TOOLS = {"onnx": ("onnxruntime", "onnx"), "tflite": ("litert-quantizer",)}


def quantize(
    artifact: Artifact,
    step: Quantize,
    calibration: CalibrationSet | None,
    path: Path,
    *,
    recipe: str,
    force: bool = False,
    log: Path | None = None,
    saturates: bool = True,
    save_ranges: Path | None = None,
    learned: Sequence[Range] = (),
    compared: Images | None = None,
) -> Artifact:
    """Quantize a float artifact into `path`, in its own format, with a sidecar.

    `recipe` is the name that the sidecar records, `log` takes the quantizer's own words. saturates: whether the 8-bit
    kernels of the target may (`Quantize.reduce_range`). save_ranges: a file that takes the ranges of a static scheme.
    learned: ranges of the layers' inputs from training (`FloatModel.input_ranges`), in place of those of the images.
    compared: images on which the file is compared with the float one (`Artifact.fidelity`), by default those of the
    calibration set. Raises StageError when the artifact is quantized already, cannot be quantized so, needs a
    calibration set that is not given, or the step's ranges are another file's.
    """
    if reason := refusal(step, artifact.format):
        raise StageError(f"{artifact.path.name}: no {step.scheme} in this format: {reason}")
    if save_ranges and not step.calibrated:
        raise StageError(f"{step.scheme} has no ranges to save; leave that out")
    if artifact.format == "ort":
        raise StageError(f"{artifact.path}: its graph is optimized already; quantize the .onnx that it was made of")
    settled = Calibrated()
    if step.calibrated:
        settled = calibrated(artifact, step, calibration, log, saturates=saturates, learned=learned)
    with tempfile.TemporaryDirectory() as folder:
        source = artifact
        if settled.content is not None:
            source = replace(artifact, path=Path(folder) / artifact.path.name)
            source.path.write_bytes(settled.content)
            settled = replace(settled, content=None)
        content = step.row.quantizer(artifact.format)(source, step, settled.ranges, log, saturates=saturates)
        notes = _notes(artifact, step, settled, calibration, content, saturates=saturates)
        # From here on a file, since the comparison needs the memory.
        made = Path(folder) / f"made.{artifact.format}"
        made.write_bytes(content)
        del content
        facts = settled.ranges.calibration if settled.ranges else None
        origin = Origin.of(artifact, recipe, *TOOLS[artifact.format], calibration=facts, notes=notes)
        if step.integer_io:
            origin = replace(origin, preprocess=PixelInput.of(artifact.preprocess).given)
        images = calibration.images if calibration and compared is None else compared
        compare = None
        if images is not None:
            compare = partial(fidelity, artifact, images=images[:COMPARED], bits=step.weight_bits)
        with refusals_explained(artifact, step, made):
            sealed = write_artifact(path, origin, partial(shutil.copyfile, made), force=force, compare=compare)
    # Last, so that a run that was killed in between left its file or nothing.
    if save_ranges and settled.ranges:
        settled.ranges.save(save_ranges, force=force)
    return sealed


def _notes(
    artifact: Artifact,
    step: Quantize,
    settled: Calibrated,
    calibration: CalibrationSet | None,
    content: bytes,
    *,
    saturates: bool,
) -> tuple[str, ...]:
    """Return what the sidecar notes, a line each."""
    notes = (*artifact.notes, *settled.notes)
    if artifact.format == "onnx" and step.row.saturating and not step.reduced(saturates=saturates):
        notes += (FULL_RANGE,)
    if calibration and calibration.note and step.needs_images:
        notes += (calibration.note,)
    if step.calibrated and (left := left_in_float(content, artifact.format)):
        notes += (f"computed in float: {', '.join(left)}",)
    notes += (f"kept float: {', '.join(step.keep)}",) if step.keep else ()
    return (*notes, *filter(None, [weights_left(content, artifact.format, step)]))

"""Float Artifact and CalibrationSet to a quantized Artifact."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from calibration.sample import CalibrationSet
from targets.artifact import Artifact
from toolchain.errors import StageError
from toolchain.export.seal import Origin, seal
from toolchain.quantize.pixels import PixelInput
from toolchain.steps import Quantize
from toolchain.steps.quantize import refusal

FULL_RANGE = "weights of 8 bits: may be read otherwise on x86 processors without VNNI, whose products saturate"
TOOLS = {"onnx": ("onnxruntime", "onnx"), "tflite": ("ai-edge-quantizer",)}


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
) -> Artifact:
    """Quantize a float artifact into `path`, in its own format, with a sidecar.

    `recipe` is the name that the sidecar records, `log` takes the quantizer's own words. saturates: whether the 8-bit
    kernels of the target may (`Quantize.reduce_range`). Raises StageError when the artifact is quantized already,
    cannot be quantized so, or needs a calibration set that is not given.
    """
    if reason := refusal(step, artifact.format):
        raise StageError(f"{artifact.path.name}: no {step.scheme} in this format: {reason}")
    if step.calibrated and calibration is None:
        raise StageError(f"{step.scheme} takes its ranges from a calibration set; give --data")
    if artifact.format == "ort":
        raise StageError(f"{artifact.path}: its graph is optimized already; quantize the .onnx that it was made of")
    images = calibration if step.calibrated else None
    if artifact.format == "onnx":
        from toolchain.quantize.onnx import quantized_onnx

        content = quantized_onnx(artifact, step, images, log, saturates=saturates)
    else:
        from toolchain.quantize.tflite import quantized_tflite

        content = quantized_tflite(artifact, step, images, log)
    facts = images.facts() if images else None
    wide = artifact.format == "onnx" and step.multiplies_int8 and not step.reduced(saturates=saturates)
    notes = (FULL_RANGE,) if wide else ()
    notes += (f"kept float: {', '.join(step.keep)}",) if step.keep else ()
    origin = Origin.of(artifact, recipe, *TOOLS[artifact.format], calibration=facts, notes=notes)
    if step.integer_io:
        origin = replace(origin, preprocess=PixelInput.of(artifact.preprocess).given)
    return seal(path, origin, content, force=force)

"""Float Artifact and CalibrationSet to a quantized Artifact."""

from __future__ import annotations

from pathlib import Path

from calibration.sample import CalibrationSet
from targets.artifact import Artifact
from toolchain.errors import StageError
from toolchain.export.seal import Origin, seal
from toolchain.steps import Quantize

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
) -> Artifact:
    """Quantize a float artifact into `path`, in its own format, with a sidecar.

    `recipe` is the name that the sidecar records, `log` takes the quantizer's own words. Raises StageError when the
    artifact is quantized already, cannot be quantized, or needs a calibration set that is not given.
    """
    if step.calibrated and calibration is None:
        raise StageError(f"{step.scheme} takes its ranges from a calibration set; give --data")
    if artifact.format == "ort":
        raise StageError(f"{artifact.path}: its graph is optimized already; quantize the .onnx that it was made of")
    if artifact.format == "onnx":
        from toolchain.quantize.onnx import quantized_onnx as quantized
    else:
        from toolchain.quantize.tflite import quantized_tflite as quantized
    images = calibration if step.calibrated else None
    content = quantized(artifact, step, images, log)
    facts = images.facts() if images else None
    origin = Origin.of(artifact, recipe, *TOOLS[artifact.format], calibration=facts)
    return seal(path, origin, content, force=force)

"""Float Artifact and CalibrationSet to a quantized Artifact."""

from __future__ import annotations

from pathlib import Path

from calibration.sample import CalibrationSet
from targets.artifact import Artifact
from toolchain.errors import StageError
from toolchain.recipe import Quantize


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
    """Quantize a float artifact into `path` in its own format.

    `recipe` is the name that the sidecar records. Raises StageError when the artifact is quantized already, or
    when a calibrated scheme is asked for without a calibration set.
    """
    if step.calibrated and calibration is None:
        raise StageError(f"{step.scheme} takes its ranges from a calibration set; give --data")
    if artifact.format == "onnx":
        from toolchain.quantize.onnx import quantize_onnx

        if step.scheme == "static-int8-act16":
            raise StageError("static-int8-act16 has no ONNX kernels; quantize the .tflite file")
        return quantize_onnx(artifact, step, calibration, path, recipe=recipe, force=force, log=log)
    from toolchain.quantize.tflite import quantize_tflite

    return quantize_tflite(artifact, step, calibration, path, recipe=recipe, force=force, log=log)

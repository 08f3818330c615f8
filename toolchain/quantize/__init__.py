"""Float Artifact and CalibrationSet to a quantized Artifact."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from calibration.sample import CalibrationSet
from targets.artifact import Artifact
from toolchain.errors import StageError
from toolchain.export.seal import Origin, seal
from toolchain.quantize.calibrate import Calibrated, calibrated
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
    save_ranges: Path | None = None,
) -> Artifact:
    """Quantize a float artifact into `path`, in its own format, with a sidecar.

    `recipe` is the name that the sidecar records, `log` takes the quantizer's own words, `save_ranges` is a file that
    takes the ranges (JSON) of a static scheme. Raises StageError when the artifact is quantized already, cannot be
    quantized, needs a calibration set that is not given, or the step's ranges are another file's.
    """
    if artifact.format == "ort":
        raise StageError(f"{artifact.path}: its graph is optimized already; quantize the .onnx that it was made of")
    if artifact.format == "onnx":
        from toolchain.quantize.onnx import quantized_onnx as quantized
    else:
        from toolchain.quantize.tflite import quantized_tflite as quantized
    settled = calibrated(artifact, step, calibration, log) if step.calibrated else None
    if settled is None:
        if save_ranges:
            raise StageError(f"{step.scheme} has no ranges to save; leave that out")
        return seal(path, _origin(artifact, recipe), quantized(artifact, step, None, log), force=force)
    with tempfile.TemporaryDirectory() as folder:
        source = artifact
        if settled.content is not None:
            source = replace(artifact, path=Path(folder) / artifact.path.name)
            source.path.write_bytes(settled.content)
        content = quantized(source, step, settled.ranges, log)
    if save_ranges:
        settled.ranges.save(save_ranges, force=force)
    return seal(path, _origin(artifact, recipe, settled), content, force=force)


def _origin(artifact: Artifact, recipe: str, settled: Calibrated | None = None) -> Origin:
    facts, notes = (settled.ranges.calibration, settled.notes) if settled else (None, ())
    return Origin.of(artifact, recipe, *TOOLS[artifact.format], calibration=facts, notes=(*artifact.notes, *notes))

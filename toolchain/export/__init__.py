"""FloatModel to a float Artifact."""

from __future__ import annotations

from pathlib import Path

from targets.artifact import Artifact, Format
from toolchain.model import FloatModel


def export(
    model: FloatModel, kind: Format, path: Path, *, recipe: str = "float", force: bool = False, log: Path | None = None
) -> Artifact:
    """Convert the model to `kind`, check the file against it, and write it with its sidecar.

    Raises StageError when the converter refuses the model, ParityError when the file answers otherwise, and
    PackageMissing when the converter is not installed.
    """
    if kind == "onnx":
        from toolchain.export.onnx import export_onnx

        return export_onnx(model, path, recipe=recipe, force=force, log=log)
    from toolchain.export.tflite import export_tflite

    return export_tflite(model, path, recipe=recipe, force=force, log=log)

"""FloatModel to a float Artifact."""

from __future__ import annotations

from pathlib import Path

from targets.artifact import Artifact, Format
from toolchain.export.parity import check_parity, reference_images, reference_logits, rounding_error
from toolchain.export.seal import Origin, seal
from toolchain.model import FloatModel
from toolchain.versions import tool_versions

TOOLS = {"onnx": ("torch", "onnx", "onnxscript"), "tflite": ("torch", "litert-torch")}


def export(
    model: FloatModel, kind: Format, path: Path, *, recipe: str = "float", force: bool = False, log: Path | None = None
) -> Artifact:
    """Convert the model to `kind`, check the file against it on 256 images, and write it with its sidecar.

    log: where the converter's own words go. Raises StageError when the converter refuses the model, ParityError when
    the file's logits differ from the model's by 1e-4 of the largest logit (or of 1) and by more than float32 rounds,
    and PackageMissing when the converter is not installed.
    """
    if kind == "onnx":
        from toolchain.export.onnx import onnx_content as convert
    else:
        from toolchain.export.tflite import tflite_content as convert
    content = convert(model, log)
    images = reference_images()
    expected = reference_logits(model, images)
    tools = tool_versions(*TOOLS[kind])
    return seal(
        path,
        Origin(
            model.preprocess,
            model.classes,
            recipe,
            model.checkpoint_sha256,
            tools,
            notes=model.history,
            checkpoint_sha256=model.root_sha256,
        ),
        content,
        force=force,
        check=lambda artifact: check_parity(
            artifact, expected, images, lambda: rounding_error(model, images, expected)
        ),
    )

"""Export: convert a FloatModel to a float artifact."""

from __future__ import annotations

from pathlib import Path

from targets.artifact import Artifact, Format
from toolchain.checkpoint.float_model import FloatModel
from toolchain.core.versions import tool_versions
from toolchain.export.exporters import EXPORTERS
from toolchain.export.parity import check_parity, reference_images, reference_logits, rounding_error
from toolchain.formats.write_artifact import Origin, write_artifact


def export(
    model: FloatModel, kind: Format, path: Path, *, recipe: str = "float", force: bool = False, log: Path | None = None
) -> Artifact:
    """Convert the model to `kind`, check the file against it on 256 images, and write it with its sidecar.

    log: takes the converter's output. Raises StageError when the converter refuses the model, ParityError when the
    file's logits differ from the model's by more than 1e-4 of the largest logit (or of 1) and more than float32 rounds,
    and PackageMissing when the converter is not installed.
    """
    exporter = EXPORTERS[kind]
    images = reference_images()
    # Before the conversion, which may move the weights out of memory.
    expected = reference_logits(model, images)
    origin = Origin(
        model.preprocess,
        model.classes,
        recipe,
        model.checkpoint_sha256,
        tool_versions(*exporter.packages),
        notes=model.history,
        checkpoint_sha256=model.root_sha256,
    )

    def check(artifact: Artifact) -> None:
        check_parity(artifact, expected, images, lambda: rounding_error(model, images, expected))

    return write_artifact(path, origin, lambda part: exporter.convert(model, part, log), force=force, check=check)

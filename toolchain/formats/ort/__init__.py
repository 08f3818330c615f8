"""ORT: a FlatBuffer in which ONNX Runtime keeps a graph that it has optimized for good."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolchain.formats.format import FileFormat
from toolchain.formats.kernels import Diagnosis

if TYPE_CHECKING:
    from pathlib import Path

    from targets.artifact import Artifact


class OrtFormat(FileFormat):
    """Format `ort`."""

    name = "ort"
    title = "ORT"
    runtime = "ONNX Runtime"
    magic = b"ORTM"
    parent = "onnx"
    opaque = "is optimized by ONNX Runtime already; give the .onnx that it was made of"

    def diagnosis(self, artifact: Artifact) -> Diagnosis:
        """Return what holds of every such file."""
        return OrtDiagnosis(artifact)

    def size_reason(self, path: Path) -> str:  # noqa: ARG002 (each format is asked alike)
        """Return what takes the bytes of every such file."""
        return (
            "an .ort stores its graph with more room than an .onnx, and weights as they run: 4 bits are 8, 8 may be 32"
        )


class OrtDiagnosis(Diagnosis):
    """Why an .ort is slow; its graph cannot be read, so this is what holds of all of them."""

    def reasons(self, base: Artifact) -> list[str]:  # noqa: ARG002 (each format is asked alike)
        """Return why float convolutions are slower."""
        return [
            "an .ort is optimized when it is made: float convolutions keep the layout of any processor, not of this "
            "one; export it again with --this-cpu, or ship the .onnx"
        ]

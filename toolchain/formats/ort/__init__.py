"""ORT: a FlatBuffer with a graph that ONNX Runtime has already optimized."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolchain.formats.catalog import FileFormat

if TYPE_CHECKING:
    from pathlib import Path

    from targets.artifact import Artifact
    from toolchain.formats.graph import Diagnosis


class OrtFormat(FileFormat):
    """Format `ort`."""

    name = "ort"
    title = "ORT"
    runtime = "ONNX Runtime"
    magic = b"ORTM"
    parent = "onnx"
    opaque = "is already optimized by ONNX Runtime; give the .onnx that it was made from"

    def diagnosis(self, artifact: Artifact) -> Diagnosis:
        """Return a diagnosis that holds for every file of this format, since the graph cannot be read."""
        from toolchain.formats.graph import Diagnosis

        return Diagnosis(
            artifact,
            "an .ort is optimized when it is made: float convolutions keep the layout of any processor, not of this "
            "one; export it again with --this-cpu, or ship the .onnx",
        )

    def size_reason(self, path: Path) -> str:  # noqa: ARG002 (the same for every file)
        """Return why files of this format are large."""
        return (
            "an .ort takes more bytes for its graph than an .onnx, and stores weights as they run: 4-bit ones "
            "in 8 bits, some 8-bit ones in 32"
        )

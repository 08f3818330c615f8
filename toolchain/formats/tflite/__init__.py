"""TFLite: a FlatBuffer with a graph of operators, run by LiteRT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolchain.formats.format import FileFormat

if TYPE_CHECKING:
    from pathlib import Path

    from targets.artifact import Artifact
    from toolchain.formats.diagnosis import Diagnosis
    from toolchain.formats.graph import Graph
    from toolchain.formats.inspection import Inspection
    from toolchain.formats.kernels import Kernel
    from toolchain.formats.trace import Trace


class TfliteFormat(FileFormat):
    """Format `tflite`."""

    name = "tflite"
    title = "TFLite"
    runtime = "LiteRT"
    magic = b"TFL3"
    pressed = True
    arithmetic = "errors: LiteRT's own kernels; kernels: by the types of the tensors"

    def inspect(self, path: Path) -> Inspection:
        """Return what stands in the first subgraph of a file."""
        from toolchain.formats.tflite.inspection import inspect_tflite

        return inspect_tflite(path)

    def graph(self, path: Path) -> Graph:
        """Return the operators and layers of the first subgraph."""
        from toolchain.formats.tflite.layers import mapped, parsed, tflite_graph

        return tflite_graph(parsed(mapped(path)))

    def kernels(self, artifact: Artifact) -> tuple[Kernel, ...]:
        """Return what LiteRT runs for each operator, by the types of its tensors."""
        from toolchain.formats.tflite.kernels import tflite_kernels

        return tflite_kernels(artifact)

    def trace(self, artifact: Artifact) -> Trace:
        """Open a file in LiteRT's own kernels."""
        from toolchain.formats.tflite.trace import TfliteTrace

        return TfliteTrace(artifact)

    def diagnosis(self, artifact: Artifact) -> Diagnosis:
        """Look at the kernels that LiteRT runs, and at what they take."""
        from toolchain.formats.tflite.diagnosis import TfliteDiagnosis

        return TfliteDiagnosis(artifact)

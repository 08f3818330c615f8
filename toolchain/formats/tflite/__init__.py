"""TFLite: a FlatBuffer with a graph of operators, run by LiteRT."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from toolchain.formats.catalog import FileFormat

if TYPE_CHECKING:
    from pathlib import Path

    from targets.artifact import Artifact
    from toolchain.formats.graph import Diagnosis, FloatParts, Graph, Kernel, Trace
    from toolchain.formats.inspection import Inspection

_NODE = re.compile(r"Node number (\d+) \(\w+\) failed")
_TENSOR = re.compile(r"Tensor (\d+) has")


class TfliteFormat(FileFormat):
    """Format `tflite`."""

    name = "tflite"
    title = "TFLite"
    runtime = "LiteRT"
    magic = b"TFL3"
    extra = "litert"
    pressed = True
    activations = ("int8",)
    converts_pixels = True
    arithmetic = "errors: LiteRT's own kernels; kernels: by the types of the tensors"

    def inspect(self, path: Path) -> Inspection:
        """Return the contents of the first subgraph of a file."""
        from toolchain.formats.tflite.inspection import inspect_tflite

        return inspect_tflite(path)

    def graph(self, path: Path) -> Graph:
        """Return the operators and layers of the first subgraph."""
        from toolchain.formats.tflite.file import mapped, parsed
        from toolchain.formats.tflite.layers import tflite_graph

        return tflite_graph(parsed(mapped(path)))

    def kernels(self, artifact: Artifact) -> tuple[Kernel, ...]:
        """Return what LiteRT runs for each operator, by the types of its tensors."""
        from toolchain.formats.tflite.layers import tflite_kernels

        return tflite_kernels(artifact)

    def trace(self, artifact: Artifact) -> Trace:
        """Open a file in LiteRT's own kernels."""
        from toolchain.formats.tflite.layers import TfliteTrace

        return TfliteTrace(artifact)

    def diagnosis(self, artifact: Artifact) -> Diagnosis:
        """Examine the kernels that LiteRT runs, and their times."""
        from toolchain.formats.tflite.layers import TfliteDiagnosis

        return TfliteDiagnosis(artifact)

    def float_parts(self, content: bytes) -> FloatParts:
        """Parse a quantized file."""
        from toolchain.formats.tflite.layers import TfliteFloatParts

        return TfliteFloatParts(content)

    def check_runs(self, path: Path) -> None:
        """Raise RunFailed where LiteRT's own kernels refuse the file."""
        from targets.errors import RunFailed
        from toolchain.formats.tflite.layers import open_bare

        try:
            open_bare(path.read_bytes())
        except (RuntimeError, ValueError) as error:
            raise RunFailed(str(error)) from error

    def refused_operator(self, path: Path, message: str) -> str:
        """Return the operator that LiteRT names by its number or by that of a tensor."""
        graph = self.graph(path)
        node, tensor = _NODE.search(message), _TENSOR.search(message)
        if node:
            numbers = [int(node[1])]
        else:
            tensors = ({*operator.inputs, *operator.outputs} for operator in graph.nodes)
            numbers = [number for number, names in enumerate(tensors) if tensor and tensor[1] in names]
        if not numbers or numbers[0] >= len(graph.nodes):
            return ""
        layers = [layer for layer in graph.layers if layer.node <= numbers[0]]
        kind = graph.nodes[numbers[0]].kind
        if not layers:
            return f" ({kind} before the first layer)"
        last = layers[-1]
        return f" (layer {last.name})" if last.node == numbers[0] else f" ({kind} behind layer {last.name})"

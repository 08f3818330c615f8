"""ONNX: a protobuf with a graph of operators, run by ONNX Runtime."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from toolchain.formats.catalog import FileFormat

if TYPE_CHECKING:
    from pathlib import Path

    from targets.artifact import Artifact
    from toolchain.formats.graph import Diagnosis, FloatParts, Graph, Kernel, Trace
    from toolchain.formats.inspection import Inspection


class OnnxFormat(FileFormat):
    """Format `onnx`."""

    name = "onnx"
    title = "ONNX"
    runtime = "ONNX Runtime"
    pressed = loads = True
    saturates = True
    activations = ("uint8", "int8")
    arithmetic = (
        "errors are measured in ONNX Runtime without graph optimizations, kernels are those with all optimizations"
    )

    def recognises(self, path: Path, head: bytes) -> bool:
        """Return whether a file may be of this format: a protobuf whose field 1 (ir_version, a varint) comes first."""
        return path.suffix == self.suffix or head.startswith(b"\x08")

    def inspect(self, path: Path) -> Inspection:
        """Return the contents of a file; MACs from shape inference, for one image."""
        from toolchain.formats.onnx.inspection import inspect_onnx

        return inspect_onnx(path)

    def graph(self, path: Path) -> Graph:
        """Return the operators and layers of a file."""
        from targets.onnxruntime.onnx_file import without_weights
        from toolchain.formats.onnx.layers import onnx_graph

        return onnx_graph(without_weights(path))

    def weight_files(self, path: Path) -> tuple[Path, ...]:
        """Return the files beside a model that hold its weights (external data)."""
        from toolchain.formats.onnx.file import weight_files

        return weight_files(path)

    def kernels(self, artifact: Artifact) -> tuple[Kernel, ...]:
        """Return what ONNX Runtime runs for each layer once the graph is optimized."""
        from toolchain.formats.onnx.kernels import onnx_kernels

        return onnx_kernels(artifact)

    def trace(self, artifact: Artifact) -> Trace:
        """Open a file in ONNX Runtime without graph optimizations."""
        from toolchain.formats.onnx.layers import OnnxTrace

        return OnnxTrace(artifact)

    def diagnosis(self, artifact: Artifact) -> Diagnosis:
        """Examine the graph that ONNX Runtime makes of the file."""
        from toolchain.formats.onnx.kernels import OnnxDiagnosis

        return OnnxDiagnosis(artifact)

    def float_parts(self, content: bytes) -> FloatParts:
        """Parse a quantized file."""
        from toolchain.formats.onnx.layers import OnnxFloatParts

        return OnnxFloatParts(content)

    def embed(self, path: Path, facts: dict[str, Any]) -> None:
        """Append to the file's metadata_props; of several entries with this key the last one counts."""
        from onnx import ModelProto, StringStringEntryProto

        from targets.artifact import ONNX_METADATA_KEY
        from targets.onnxruntime.onnx_file import append

        value = json.dumps(facts, ensure_ascii=False, separators=(",", ":"))
        append(path, ModelProto(metadata_props=[StringStringEntryProto(key=ONNX_METADATA_KEY, value=value)]))

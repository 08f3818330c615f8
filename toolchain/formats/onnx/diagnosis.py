"""Why an ONNX file is slow, from the graph that ONNX Runtime makes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from targets.artifact import Artifact
from toolchain.formats.diagnosis import Diagnosis, listed
from toolchain.formats.onnx.optimized import optimized_graph

if TYPE_CHECKING:
    from onnx import NodeProto

SCALING = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class Optimized:
    """nodes: in order. constants: the dtype of each, in ONNX's words (`INT8`, `FLOAT`)."""

    nodes: tuple[NodeProto, ...]
    constants: dict[str, str]

    def count(self, kind: str) -> int:
        """Return how many operators of a kind there are."""
        return sum(node.op_type == kind for node in self.nodes)

    def between_integers(self) -> Counter[str]:
        """Return the kinds of operators on a way of floats from a DequantizeLinear to a QuantizeLinear."""
        floats: set[str] = set()
        quantized_later: set[str] = set()
        for node in self.nodes:
            begins = node.op_type == "DequantizeLinear" and node.input[0] not in self.constants
            if begins or (node.op_type not in SCALING and floats & set(node.input)):
                floats.update(node.output)
        for node in reversed(self.nodes):
            if node.op_type == "QuantizeLinear" or quantized_later & set(node.output):
                quantized_later.update(() if node.op_type == "DequantizeLinear" else node.input)
        return Counter(
            node.op_type
            for node in self.nodes
            if node.op_type not in SCALING and floats & set(node.input) and quantized_later & set(node.output)
        )


class OnnxDiagnosis(Diagnosis):
    """Why an ONNX file is slow."""

    @cached_property
    def optimized(self) -> Optimized:
        """The graph as `ort-cpu` optimizes it on this machine; raises RunFailed where ONNX Runtime refuses the file."""
        from onnx import TensorProto

        graph = optimized_graph(self.artifact)
        names = TensorProto.DataType.Name
        return Optimized(tuple(graph.node), {tensor.name: names(tensor.data_type) for tensor in graph.initializer})

    def reasons(self, base: Artifact) -> list[str]:
        """Return what in the optimized graph costs time."""
        graph = self.optimized
        found = [reason for check in _CHECKS for reason in check(graph)]
        if found and base.format == self.artifact.format:
            before = len(OnnxDiagnosis(base).optimized.nodes)
            if (more := len(graph.nodes) - before) > 0:
                found.append(f"{more} nodes more than the {before} of {base.path.name}, once both are optimized")
        return found

    def computes_in_int8(self) -> bool:
        """Return whether an integer kernel is in the optimized graph."""
        kinds = {node.op_type for node in self.optimized.nodes}
        return any(kind.startswith(("QLinear", "QGemm", "DynamicQuantize", "MatMulInteger")) for kind in kinds)


def _convolutions(graph: Optimized) -> Iterator[str]:
    if count := graph.count("ConvInteger"):
        yield (
            f"ConvInteger ({count}): ONNX Runtime has no fast kernel for it; quantize convolutions statically, or not "
            "at all"
        )


def _signed(graph: Optimized) -> Iterator[str]:
    kinds = Counter(
        node.op_type
        for node in graph.nodes
        # Of all of these the third input is the zero point of the first one.
        if (node.op_type.startswith("QLinear") or node.op_type == "QGemm")
        and len(node.input) > 2
        and graph.constants.get(node.input[2]) == "INT8"
    )
    if kinds:
        yield (
            f"signed activations (int8) in {listed(kinds)}: ONNX Runtime's fast kernels on x86 take unsigned ones; "
            "quantize activations to uint8"
        )


def _stored(graph: Optimized) -> Iterator[str]:
    kinds = Counter(
        graph.constants[node.input[0]].lower()
        for node in graph.nodes
        if node.op_type == "DequantizeLinear" and node.input[0] in graph.constants
    )
    if kinds:
        yield f"DequantizeLinear of stored {listed(kinds)} is fused into no kernel and runs in each inference"


_GELU = {"Erf", "Gelu", "FastGelu", "QuickGelu", "BiasGelu"}


def _islands(graph: Optimized) -> Iterator[str]:
    if kinds := graph.between_integers():
        yield (
            f"float between integers: {listed(kinds)}, without an integer kernel, is dequantized and quantized again"
            + "; this is GELU, and a model with ReLU stays among integers" * bool(_GELU & set(kinds))
        )


def _dynamic(graph: Optimized) -> Iterator[str]:
    kinds = Counter(node.op_type for node in graph.nodes if node.op_type.startswith("DynamicQuantize"))
    if kinds:
        yield f"{listed(kinds)}: activations are measured and quantized anew in each inference"


_CHECKS = (_convolutions, _signed, _stored, _islands, _dynamic)

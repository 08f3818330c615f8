"""What there is to regret in the graph that ONNX Runtime makes of a file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from targets.artifact import Artifact
from toolchain.layers.onnx_optimized import optimized_graph

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


def optimized(artifact: Artifact) -> Optimized:
    """Optimize an .onnx artifact as `ort-cpu` does; raises RunFailed where ONNX Runtime refuses it."""
    from onnx import TensorProto

    graph = optimized_graph(artifact)
    names = TensorProto.DataType.Name
    return Optimized(tuple(graph.node), {tensor.name: names(tensor.data_type) for tensor in graph.initializer})

"""What ONNX Runtime runs of a file on the CPU: the graph as it stands after every optimization."""

from __future__ import annotations

from targets.artifact import Artifact
from targets.onnxruntime.operators import origin
from targets.onnxruntime.protobuf import without_weights
from toolchain.formats.graph import Graph, Layer
from toolchain.formats.kernels import AT_RUN_TIME, BETWEEN_FLOATS, EXPANDED, FLOAT_WEIGHTS, NO_KERNEL, Kernel
from toolchain.formats.onnx.layers import onnx_graph
from toolchain.formats.onnx.optimized import optimized_graph

_SHAPES = ["Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Shape", "Expand", "Cast"]
_PARTS = ["Gather", "Slice", "Concat", "Split", "Pad", "MaxPool", "ReorderInput", "ReorderOutput"]
_MOVES = frozenset([*_SHAPES, *_PARTS])
"""Kinds that only move values, in the type that they come in."""
_BORDERS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
_OWN_ROUNDING = "the file holds float weights, and ONNX Runtime rounds them itself between two quantized tensors"


def onnx_kernels(artifact: Artifact) -> tuple[Kernel, ...]:
    """See `toolchain.explain.explanation.kernels`."""
    graph = onnx_graph(without_weights(artifact.path))
    owners = {name: layer for layer in graph.layers for name in (f"[node {layer.node}]", *layer.chain)}
    optimized = optimized_graph(artifact).node
    integers: set[str] = set()
    found, told = [], set()
    for node in optimized:
        layer = owners.get(origin(node.name))
        integer = _integer(node.op_type)
        if integer or (node.op_type in _MOVES and node.input[0] in integers) or node.op_type == "QuantizeLinear":
            integers.update(node.output)
        if node.op_type in _BORDERS or node.op_type in _MOVES:
            continue
        if layer and layer.name not in told:
            told.add(layer.name)
            found.append(Kernel(layer.name, node.op_type, integer, _reason(graph, layer, integer=integer)))
        elif not integer and not layer:
            makers = [one for one in optimized if node.input and node.input[0] in one.output]
            dequantized = any(one.op_type == "DequantizeLinear" for one in makers)
            found.append(Kernel("", node.op_type, False, NO_KERNEL if dequantized else BETWEEN_FLOATS))
    return tuple(found)


def _integer(kind: str) -> bool:
    return kind.startswith(("QLinear", "QGemm")) or kind.endswith("Integer") or kind == "DynamicQuantizeMatMul"


def _reason(graph: Graph, layer: Layer, *, integer: bool) -> str:
    """Return why a layer runs in float, by what stands around it in the file; what is special of an integer one."""
    node, weights = graph.nodes[layer.node], layer.weights
    source = graph.ports.get(node.inputs[0])
    if weights.dtype == "float32":
        return _OWN_ROUNDING if integer else FLOAT_WEIGHTS
    if integer:
        return "" if source or node.kind.startswith("QLinear") else AT_RUN_TIME
    if "DequantizeLinear" not in weights.through:
        return EXPANDED
    if source is None or layer.result not in graph.ports:
        return f"its {'output' if source else 'input'} is not quantized"
    if weights.dtype.endswith("int4") and "Cast" not in weights.through:
        return "DequantizeLinear of 4-bit weights is not fused into an integer kernel"
    return f"ONNX Runtime has no kernel of {source.spec.dtype} activations and {weights.dtype} weights for it"

"""What LiteRT runs of a file on the CPU: there the types of an operator's tensors say it."""

from __future__ import annotations

from targets.artifact import Artifact
from toolchain.formats.graph import Graph, Node
from toolchain.formats.kernels import AT_RUN_TIME, BETWEEN_FLOATS, FLOAT_WEIGHTS, LEFT, Kernel
from toolchain.formats.tflite.layers import mapped, parsed, tflite_graph

_SHAPES = ["QUANTIZE", "DEQUANTIZE", "CAST", "RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "SHAPE"]
_PARTS = ["PAD", "PADV2", "SLICE", "STRIDED_SLICE", "CONCATENATION", "SPLIT", "GATHER", "MAX_POOL_2D"]
_MOVES = frozenset([*_SHAPES, *_PARTS])
"""Kinds that only move values, in the type that they come in, and those between the types."""


def tflite_kernels(artifact: Artifact) -> tuple[Kernel, ...]:
    """See `toolchain.explain.explanation.kernels`."""
    graph = tflite_graph(parsed(mapped(artifact.path)))
    layers = {layer.node: layer for layer in graph.layers}
    found = []
    for number, node in enumerate(graph.nodes):
        if layer := layers.get(number):
            found.append(_layer(graph, node, layer.name, layer.weights.dtype, expanded=bool(layer.weights.through)))
        elif node.kind not in _MOVES and node.outputs[0] not in graph.constants and not _quantized(graph, node.outputs):
            dequantized = graph.makers.get(node.inputs[0], node).kind == "DEQUANTIZE"
            found.append(Kernel("", node.kind, False, LEFT if dequantized else BETWEEN_FLOATS))
    return tuple(found)


def _layer(graph: Graph, node: Node, name: str, dtype: str, *, expanded: bool) -> Kernel:
    if dtype == "float32":
        return Kernel(name, node.kind, False, FLOAT_WEIGHTS)
    if expanded:
        return Kernel(name, node.kind, False, "its weights are dequantized in front of it")
    return Kernel(name, node.kind, True, "" if _quantized(graph, node.inputs) else AT_RUN_TIME)


def _quantized(graph: Graph, tensors: tuple[str, ...]) -> bool:
    """Return whether the first of an operator's tensors holds integers; a dequantized one only came of them."""
    maker = graph.makers.get(tensors[0])
    return tensors[0] in graph.ports and not (maker and maker.kind == "DEQUANTIZE")

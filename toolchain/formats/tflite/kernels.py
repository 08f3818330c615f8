"""The kernels that LiteRT runs for a file on the CPU, told by the types of its tensors, and why the file is slow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from targets import catalog
from targets.artifact import Artifact
from targets.session import Operator
from toolchain.formats.graph import (
    AT_RUN_TIME,
    BETWEEN_FLOATS,
    FLOAT_WEIGHTS,
    LEFT_FLOAT,
    Diagnosis,
    Graph,
    Kernel,
    Node,
    listed,
)
from toolchain.formats.tflite.layers import mapped, parsed, tflite_graph

_SHAPES = ["QUANTIZE", "DEQUANTIZE", "CAST", "RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "SHAPE"]
_PARTS = ["PAD", "PADV2", "SLICE", "STRIDED_SLICE", "CONCATENATION", "SPLIT", "GATHER", "MAX_POOL_2D"]
_MOVES = frozenset([*_SHAPES, *_PARTS])
"""Kinds that only move values without changing them, or only change their type."""


def tflite_kernels(artifact: Artifact) -> tuple[Kernel, ...]:
    """See `toolchain.formats.catalog.FileFormat.kernels`."""
    graph = tflite_graph(parsed(mapped(artifact.path)))
    layers = {layer.node: layer for layer in graph.layers}
    kernels = []
    for number, node in enumerate(graph.nodes):
        if layer := layers.get(number):
            kernels.append(
                _layer_kernel(graph, node, layer.name, layer.weights.dtype, expanded=bool(layer.weights.through))
            )
        elif node.kind not in _MOVES and node.outputs[0] not in graph.constants and not _quantized(graph, node.outputs):
            dequantized = graph.makers.get(node.inputs[0], node).kind == "DEQUANTIZE"
            kernels.append(Kernel("", node.kind, False, LEFT_FLOAT if dequantized else BETWEEN_FLOATS))
    return tuple(kernels)


def _layer_kernel(graph: Graph, node: Node, name: str, dtype: str, *, expanded: bool) -> Kernel:
    if dtype == "float32":
        return Kernel(name, node.kind, False, FLOAT_WEIGHTS)
    if expanded:
        return Kernel(name, node.kind, False, "its weights are dequantized in front of it")
    return Kernel(name, node.kind, True, "" if _quantized(graph, node.inputs) else AT_RUN_TIME)


def _quantized(graph: Graph, tensors: tuple[str, ...]) -> bool:
    """Return whether the first of these tensors holds integers; a dequantized tensor has a codec but holds floats."""
    maker = graph.makers.get(tensors[0])
    return tensors[0] in graph.codecs and not (maker and maker.kind == "DEQUANTIZE")


class TfliteDiagnosis(Diagnosis):
    """Why a TFLite file is slow."""

    def reasons(self, base: Artifact) -> list[str]:  # noqa: ARG002 (of every format)
        """Return what runs outside XNNPACK, or in its slower kernels."""
        with catalog.default_for(self.artifact.format).open(self.artifact) as session:
            parts = session.facts.placement.get("XNNPACK", 0)
        reasons = []
        if parts != 1:
            reasons.append(f"XNNPACK has {f'the graph in {parts} parts' if parts else 'no part of the graph'}")
        if self._has_int16():
            reasons.append("int16 activations, for which XNNPACK has no kernels")
        if outside := [operator for operator in self.operators if operator.kernel.isupper()]:
            reasons.append(f"outside XNNPACK: {self._kernels_and_time(outside)}")
        converters = [operator for operator in self.operators if operator.kernel.startswith("Convert")]
        if dynamic := [operator for operator in converters if "QD8" in operator.kernel]:
            reasons.append(
                f"activations are measured and quantized anew in each inference: {self._kernels_and_time(dynamic)}"
            )
        return reasons

    def computes_in_int8(self) -> bool:
        """Return whether XNNPACK runs an int8 kernel."""
        return any("QC8" in operator.kernel or "QS8" in operator.kernel for operator in self.operators)

    def _has_int16(self) -> bool:
        from ai_edge_litert.interpreter import Interpreter

        tensors = Interpreter(str(self.artifact.path)).get_tensor_details()
        return any(tensor["dtype"] == np.int16 for tensor in tensors)

    def _kernels_and_time(self, operators: Sequence[Operator]) -> str:
        return f"{listed(Counter(operator.kernel for operator in operators))}, {self.time_share(operators)}"

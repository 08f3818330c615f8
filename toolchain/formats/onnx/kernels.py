"""The kernels that ONNX Runtime runs on the CPU for a file that it has optimized, and why the file is slow."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from targets.artifact import Artifact
from targets.errors import RunFailed, in_one_line
from targets.host.runtime_session import quiet_stderr
from targets.onnxruntime.cpu import OrtCpu
from targets.onnxruntime.onnx_file import without_weights
from targets.onnxruntime.operators import numbered, origin
from toolchain.formats.graph import (
    AT_RUN_TIME,
    BETWEEN_FLOATS,
    EXPANDED,
    FLOAT_WEIGHTS,
    NO_KERNEL,
    Diagnosis,
    Graph,
    Kernel,
    Layer,
    listed,
)
from toolchain.formats.onnx.file import write_model
from toolchain.formats.onnx.layers import onnx_graph

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

_SHAPES = ["Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Shape", "Expand", "Cast"]
_PARTS = ["Gather", "Slice", "Concat", "Split", "Pad", "MaxPool", "ReorderInput", "ReorderOutput"]
_MOVES = frozenset([*_SHAPES, *_PARTS])
"""Kinds that only move values without changing them."""
_SCALING = ("QuantizeLinear", "DequantizeLinear")
_OWN_ROUNDING = "the file holds float weights, and ONNX Runtime rounds them itself between two quantized tensors"
_GELU = {"Erf", "Gelu", "FastGelu", "QuickGelu", "BiasGelu"}


def optimized_graph(artifact: Artifact) -> GraphProto:
    """Return the graph of an .onnx artifact after all optimizations of `ort-cpu` on this processor.

    A node's name says which operator of the file it was made from (`targets.onnxruntime.operators.origin`). Raises
    RunFailed where ONNX Runtime refuses the file.
    """
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder, "optimized.onnx")
        options = OrtCpu().options(1)
        options.optimized_model_filepath = str(optimized)
        # Saves memory: external weights are written without another copy, and not in the layout of the kernels.
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
        options.add_session_config_entry("session.disable_prepacking", "1")
        source = Path(folder, "numbered.onnx")
        write_model(numbered(onnx.load(artifact.path)), source)
        try:
            with quiet_stderr():
                onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            # onnxruntime's exceptions share no base.
            raise RunFailed(
                f"{artifact.path}: ONNX Runtime refuses it ({in_one_line(error)}); export it again"
            ) from error
        return without_weights(optimized).graph


def onnx_kernels(artifact: Artifact) -> tuple[Kernel, ...]:
    """See `toolchain.formats.catalog.FileFormat.kernels`."""
    graph = onnx_graph(without_weights(artifact.path))
    owners = {name: layer for layer in graph.layers for name in (f"[node {layer.node}]", *layer.chain)}
    optimized = optimized_graph(artifact).node
    integers: set[str] = set()
    kernels, listed_layers = [], set()
    for node in optimized:
        layer = owners.get(origin(node.name))
        integer = _integer(node.op_type)
        if integer or (node.op_type in _MOVES and node.input[0] in integers) or node.op_type == "QuantizeLinear":
            integers.update(node.output)
        if node.op_type in (*_SCALING, "DynamicQuantizeLinear", *_MOVES):
            continue
        if layer and layer.name not in listed_layers:
            listed_layers.add(layer.name)
            kernels.append(Kernel(layer.name, node.op_type, integer, _reason(graph, layer, integer=integer)))
        elif not integer and not layer:
            makers = [maker for maker in optimized if node.input and node.input[0] in maker.output]
            dequantized = any(maker.op_type == "DequantizeLinear" for maker in makers)
            kernels.append(Kernel("", node.op_type, False, NO_KERNEL if dequantized else BETWEEN_FLOATS))
    return tuple(kernels)


def _integer(kind: str) -> bool:
    return kind.startswith(("QLinear", "QGemm")) or kind.endswith("Integer") or kind == "DynamicQuantizeMatMul"


def _reason(graph: Graph, layer: Layer, *, integer: bool) -> str:
    """Return why a layer runs in float, from the operators around it in the file; for an integer one, a remark."""
    node, weights = graph.nodes[layer.node], layer.weights
    source = graph.codecs.get(node.inputs[0])
    if weights.dtype == "float32":
        return _OWN_ROUNDING if integer else FLOAT_WEIGHTS
    if integer:
        return "" if source or node.kind.startswith("QLinear") else AT_RUN_TIME
    if "DequantizeLinear" not in weights.through:
        return EXPANDED
    if source is None or layer.result not in graph.codecs:
        return f"its {'output' if source else 'input'} is not quantized"
    if weights.dtype.endswith("int4") and "Cast" not in weights.through:
        return "DequantizeLinear of 4-bit weights is not fused into an integer kernel"
    return f"ONNX Runtime has no kernel of {source.spec.dtype} activations and {weights.dtype} weights for it"


class Optimized(NamedTuple):
    """An optimized graph. nodes: in the order of execution. constants: name -> dtype as ONNX writes it (`INT8`)."""

    nodes: Sequence[NodeProto]
    constants: dict[str, str]


class OnnxDiagnosis(Diagnosis):
    """Why an ONNX file is slow."""

    @cached_property
    def optimized(self) -> Optimized:
        """The graph that `ort-cpu` optimizes on this machine; raises RunFailed where ONNX Runtime refuses the file."""
        from onnx import TensorProto

        graph = optimized_graph(self.artifact)
        names = TensorProto.DataType.Name
        return Optimized(graph.node, {tensor.name: names(tensor.data_type) for tensor in graph.initializer})

    def reasons(self, base: Artifact) -> list[str]:
        """Return the parts of the optimized graph that cost time."""
        graph = self.optimized
        reasons = [reason for check in _CHECKS for reason in check(graph)]
        if reasons and base.format == self.artifact.format:
            before = len(OnnxDiagnosis(base).optimized.nodes)
            if (more := len(graph.nodes) - before) > 0:
                reasons.append(f"{more} nodes more than the {before} of {base.path.name}, once both are optimized")
        return reasons

    def computes_in_int8(self) -> bool:
        """Return whether the optimized graph has an integer kernel."""
        kinds = {node.op_type for node in self.optimized.nodes}
        return any(kind.startswith(("QLinear", "QGemm", "DynamicQuantize", "MatMulInteger")) for kind in kinds)


def _convolutions(graph: Optimized) -> Iterator[str]:
    if count := sum(node.op_type == "ConvInteger" for node in graph.nodes):
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


def _float_between_integers(graph: Optimized) -> Iterator[str]:
    """Yield the reason for operators that compute in float between a DequantizeLinear and a QuantizeLinear."""
    floats: set[str] = set()
    quantized_later: set[str] = set()
    for node in graph.nodes:
        is_start = node.op_type == "DequantizeLinear" and node.input[0] not in graph.constants
        if is_start or (node.op_type not in _SCALING and floats & set(node.input)):
            floats.update(node.output)
    for node in reversed(graph.nodes):
        if node.op_type == "QuantizeLinear" or quantized_later & set(node.output):
            quantized_later.update(() if node.op_type == "DequantizeLinear" else node.input)
    kinds = Counter(
        node.op_type
        for node in graph.nodes
        if node.op_type not in _SCALING and floats & set(node.input) and quantized_later & set(node.output)
    )
    if kinds:
        yield (
            f"float between integers: {listed(kinds)}, without an integer kernel, is dequantized and quantized again"
            + "; this is GELU, and a model with ReLU stays among integers" * bool(_GELU & set(kinds))
        )


def _dynamic(graph: Optimized) -> Iterator[str]:
    kinds = Counter(node.op_type for node in graph.nodes if node.op_type.startswith("DynamicQuantize"))
    if kinds:
        yield f"{listed(kinds)}: activations are measured and quantized anew in each inference"


_CHECKS = (_convolutions, _signed, _stored, _float_between_integers, _dynamic)

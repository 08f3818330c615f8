"""The graph of an ONNX file."""

from __future__ import annotations

import re
from collections import Counter
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from targets.artifact import TensorSpec
from targets.host.runtime_session import TensorCodec
from targets.onnxruntime.operators import layer_of_weight
from toolchain.formats.graph import NOT_FLOAT, Constant, Graph, Node, is_matrix

if TYPE_CHECKING:
    from onnx import ModelProto

WEIGHTED = {
    "Conv": 1,
    "ConvTranspose": 1,
    "Gemm": 1,
    "MatMul": 1,
    "ConvInteger": 1,
    "MatMulInteger": 1,
    "DynamicQuantizeMatMul": 1,
    "MatMulNBits": 1,
    "QLinearConv": 3,
    "QLinearMatMul": 3,
}
"""Operator with weights -> which input holds them."""
# Not HardSwish and Mish, which ONNX Runtime takes apart before it quantizes: a layer would end before or behind them.
_ACTIVATIONS = [
    "Relu",
    "LeakyRelu",
    "PRelu",
    "Clip",
    "Sigmoid",
    "HardSigmoid",
    "Tanh",
    "Elu",
    "Gelu",
]
FOLLOWED = frozenset([*_ACTIVATIONS, "QuantizeLinear", "DequantizeLinear", "Cast", "BatchNormalization"])
_DERIVED = re.compile(r"_(quantized|int8|int4|packed)$")
"""What quantizers put behind the name of a weight."""


def onnx_graph(model: ModelProto) -> Graph:
    """Return the operators and layers of a model."""
    graph = model.graph
    nodes = tuple(Node(one.op_type, tuple(one.input), tuple(one.output)) for one in graph.node)
    values = _scalars(graph)
    constants = _constants(model, nodes)
    names = {one.name: _layer(one.name) for one in constants.values()}
    outputs = tuple(one.name for one in graph.output)
    return Graph(nodes, outputs, constants, _ports(nodes, values), WEIGHTED, FOLLOWED, names)


def _layer(weight: str) -> str:
    """Return the layer of a weight: as torch names it (`features.conv1.weight`), else the weight's own name."""
    return layer_of_weight(weight) or _DERIVED.sub("", weight)


def _constants(model: ModelProto, nodes: tuple[Node, ...]) -> dict[str, Constant]:
    """Return what the file holds, and what comes of that alone, under the name of the first thing it comes of."""
    from onnx.helper import tensor_dtype_to_np_dtype

    found = {
        one.name: Constant(one.name, tensor_dtype_to_np_dtype(one.data_type).name, int(np.prod(one.dims, dtype=int)))
        for one in model.graph.initializer
    }
    for node, proto in zip(nodes, model.graph.node, strict=True):
        inputs = [name for name in node.inputs if name]
        if node.kind == "Constant":
            tensor = next((one.t for one in proto.attribute if one.name == "value"), None)
            if tensor is not None:
                dtype = tensor_dtype_to_np_dtype(tensor.data_type).name
                found[node.outputs[0]] = Constant(node.outputs[0], dtype, int(np.prod(tensor.dims, dtype=int)))
        elif inputs and all(name in found for name in inputs):
            root = found[inputs[0]]
            made = Constant(root.name, root.dtype, root.size, (*root.through, node.kind))
            found |= dict.fromkeys(node.outputs, made)
    return found


def _scalars(graph: Any) -> dict[str, Any]:
    """Return the values of the single numbers that the file holds: scales and zero points of activations."""
    from onnx.numpy_helper import to_array

    return {one.name: to_array(one).reshape(()) for one in graph.initializer if np.prod(one.dims, dtype=int) == 1}


def _ports(nodes: tuple[Node, ...], values: dict[str, Any]) -> dict[str, TensorCodec]:
    """Return what the integers of every tensor that is quantized or dequantized as a whole stand for."""
    found: dict[str, TensorCodec] = {}
    for node in nodes:
        if node.kind in ("QuantizeLinear", "DequantizeLinear"):
            scale, zero = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else ""
        elif node.kind in ("QLinearConv", "QLinearMatMul"):
            scale, zero = node.inputs[6:8]
        else:
            continue
        if scale in values and (not zero or zero in values):
            point = values[zero] if zero else np.uint8(0)
            spec = TensorSpec(node.outputs[0], (-1, -1), point.dtype.name, float(values[scale]), int(point))
            found[node.outputs[0]] = TensorCodec(spec)
    return found


class OnnxFloatParts:
    """See `toolchain.formats.graph.FloatParts`."""

    def __init__(self, content: bytes) -> None:
        """Parse the file."""
        import onnx

        self._model = onnx.load_from_string(content)

    def operators(self) -> set[str]:
        """Return the kinds of operators that compute in float."""
        import onnx
        from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

        graph = onnx.shape_inference.infer_shapes(self._model).graph
        floats = {
            value.name
            for value in (*graph.value_info, *graph.output)
            if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        }
        known = {"QuantizeLinear", "DequantizeLinear", *QDQRegistry, *QLinearOpsRegistry}
        constants = {tensor.name for tensor in graph.initializer}
        float_kinds = set()
        for node in graph.node:
            if constants.issuperset(node.input):
                # Folded when the file is loaded.
                constants.update(node.output)
            elif node.op_type not in known and set(node.output) & floats:
                float_kinds.add(node.op_type)
        return float_kinds

    def weights(self) -> Counter[str]:
        """Return how many float32 weights operators of each kind read."""
        import onnx

        graph = self._model.graph
        readers: dict[str, str] = {}
        for node in graph.node:
            readers |= {name: node.op_type for name in node.input if name not in readers}
        counts: Counter[str] = Counter()
        for tensor in graph.initializer:
            if is_matrix(tensor.dims):
                is_float = tensor.data_type == onnx.TensorProto.FLOAT
                counts[readers.get(tensor.name, "nothing") if is_float else NOT_FLOAT] += prod(tensor.dims)
        return counts

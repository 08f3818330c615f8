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
    from onnx import ModelProto, TensorProto

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
# Not HardSwish and Mish: ONNX Runtime splits them into several operators before it quantizes, so that a layer would end
# at another tensor in the float file than in the quantized one.
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
_QUANTIZER_SUFFIX = re.compile(r"_(quantized|int8|int4|packed)$")
"""Suffixes that quantizers append to the name of a weight."""


def onnx_graph(model: ModelProto) -> Graph:
    """Return the operators and layers of a model."""
    graph = model.graph
    nodes = tuple(Node(node.op_type, tuple(node.input), tuple(node.output)) for node in graph.node)
    scalars = _scalars(graph)
    constants = _constants(model, nodes)
    names = {constant.name: _layer_name(constant.name) for constant in constants.values()}
    outputs = tuple(output.name for output in graph.output)
    return Graph(nodes, outputs, constants, _codecs(nodes, scalars), WEIGHTED, FOLLOWED, names)


def _layer_name(weight: str) -> str:
    """Return the layer of a weight: as torch names it (`features.conv1.weight`), else the weight's own name."""
    return layer_of_weight(weight) or _QUANTIZER_SUFFIX.sub("", weight)


def _constants(model: ModelProto, nodes: tuple[Node, ...]) -> dict[str, Constant]:
    """Return the tensors stored in the file, and those computed from stored ones alone.

    A computed one has name, type and size of the stored tensor behind its first input.
    """
    from onnx.helper import tensor_dtype_to_np_dtype

    def stored(name: str, tensor: TensorProto) -> Constant:
        dtype = tensor_dtype_to_np_dtype(tensor.data_type).name
        return Constant(name, dtype, int(np.prod(tensor.dims, dtype=int)))

    constants = {tensor.name: stored(tensor.name, tensor) for tensor in model.graph.initializer}
    for node, proto in zip(nodes, model.graph.node, strict=True):
        inputs = [name for name in node.inputs if name]
        if node.kind == "Constant":
            tensor = next((attribute.t for attribute in proto.attribute if attribute.name == "value"), None)
            if tensor is not None:
                constants[node.outputs[0]] = stored(node.outputs[0], tensor)
        elif inputs and all(name in constants for name in inputs):
            source = constants[inputs[0]]
            computed = Constant(source.name, source.dtype, source.size, (*source.through, node.kind))
            constants |= dict.fromkeys(node.outputs, computed)
    return constants


def _scalars(graph: Any) -> dict[str, Any]:
    """Return the stored tensors of one element, among them scales and zero points of activations, as 0-d arrays."""
    from onnx.numpy_helper import to_array

    return {
        tensor.name: to_array(tensor).reshape(())
        for tensor in graph.initializer
        if np.prod(tensor.dims, dtype=int) == 1
    }


def _codecs(nodes: tuple[Node, ...], scalars: dict[str, Any]) -> dict[str, TensorCodec]:
    """Return the quantization of every tensor that is quantized or dequantized with a single scale."""
    codecs: dict[str, TensorCodec] = {}
    for node in nodes:
        if node.kind in ("QuantizeLinear", "DequantizeLinear"):
            scale, zero_point = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else ""
        elif node.kind in ("QLinearConv", "QLinearMatMul"):
            scale, zero_point = node.inputs[6:8]
        else:
            continue
        if scale in scalars and (not zero_point or zero_point in scalars):
            point = scalars[zero_point] if zero_point else np.uint8(0)
            spec = TensorSpec(node.outputs[0], (-1, -1), point.dtype.name, float(scalars[scale]), int(point))
            codecs[node.outputs[0]] = TensorCodec(spec)
    return codecs


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
        quantizable = {"QuantizeLinear", "DequantizeLinear", *QDQRegistry, *QLinearOpsRegistry}
        constants = {tensor.name for tensor in graph.initializer}
        float_kinds = set()
        for node in graph.node:
            if constants.issuperset(node.input):
                # ONNX Runtime computes it once, when it loads the file.
                constants.update(node.output)
            elif node.op_type not in quantizable and set(node.output) & floats:
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

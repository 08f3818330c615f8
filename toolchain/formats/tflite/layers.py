"""The graph of a TFLite file. A tensor's name is its index as text: names in the file need not be unique."""

from __future__ import annotations

import mmap
from collections import Counter
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from targets.artifact import TensorSpec
from targets.host.runtime_session import TensorCodec
from targets.litert.operators import layer_of_tensor
from toolchain.formats.graph import NOT_FLOAT, Constant, Graph, Node, is_matrix

WEIGHTED = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "TRANSPOSE_CONV": 1, "FULLY_CONNECTED": 1, "BATCH_MATMUL": 1}
"""Operator with weights -> which input holds them."""
_ACTIVATIONS = ["RELU", "RELU6", "LEAKY_RELU", "LOGISTIC", "TANH", "HARD_SWISH", "ELU", "GELU"]
FOLLOWED = frozenset([*_ACTIVATIONS, "QUANTIZE", "DEQUANTIZE"])


def mapped(path: Path) -> mmap.mmap:
    """Return the content of a file as a memory map: only what is read takes memory."""
    with path.open("rb") as stream:
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)


def parsed(content: bytes | mmap.mmap) -> Any:
    """Return the model of a file (`schema_py_generated.ModelT`); its buffers are views of `content`."""
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromPackedBuf(content, 0)


def tflite_graph(model: Any) -> Graph:
    """Return the operators and layers of the first subgraph."""
    graph = model.subgraphs[0]
    dtypes = enum_names("TensorType")
    kinds = [
        code.customCode.decode() if code.customCode else kind
        for code, kind in zip(model.operatorCodes, operator_kinds(model), strict=True)
    ]
    nodes = tuple(
        Node(kinds[operator.opcodeIndex], _keys(operator.inputs), _keys(operator.outputs))
        for operator in graph.operators
    )
    constants = {
        str(number): _constant(number, tensor, dtypes[tensor.type].lower())
        for number, tensor in enumerate(graph.tensors)
        if model.buffers[tensor.buffer].data is not None or model.buffers[tensor.buffer].size
    }
    names = {str(number): layer_of_tensor(tensor.name.decode()) for number, tensor in enumerate(graph.tensors)}
    codecs = _codecs(graph, dtypes)
    for node in nodes:
        first = node.inputs[0] if node.inputs else ""
        if node.kind in ("DEQUANTIZE", "CAST") and first in constants:
            source = constants[first]
            through = (*source.through, node.kind)
            constants[node.outputs[0]] = Constant(source.name, source.dtype, source.size, through)
        elif node.kind == "DEQUANTIZE" and first in codecs:
            codecs[node.outputs[0]] = codecs[first]
    return Graph(nodes, _keys(graph.outputs), constants, codecs, WEIGHTED, FOLLOWED, names)


def _constant(number: int, tensor: Any, dtype: str) -> Constant:
    return Constant(str(number), dtype, int(np.prod(tensor.shape if tensor.shape is not None else (), dtype=int)))


def _codecs(graph: Any, dtypes: dict[int, str]) -> dict[str, TensorCodec]:
    """Return the quantization of every tensor that has a single scale."""
    codecs = {}
    for number, tensor in enumerate(graph.tensors):
        quantization = tensor.quantization
        if quantization is not None and quantization.scale is not None and len(quantization.scale) == 1:
            shape, dtype = tuple(map(int, tensor.shape)), dtypes[tensor.type].lower()
            points = quantization.zeroPoint
            zero_point = int(points[0]) if points is not None and len(points) else 0
            spec = TensorSpec(str(number), shape, dtype, float(quantization.scale[0]), zero_point)
            codecs[str(number)] = TensorCodec(spec)
    return codecs


def _keys(tensors: Any) -> tuple[str, ...]:
    """Return the names of tensors given by index; -1 is an input left out, whose name is empty."""
    return tuple("" if index < 0 else str(index) for index in (tensors if tensors is not None else ()))


@cache
def enum_names(enum: str) -> dict[int, str]:
    """Return value -> name of an enumeration of the schema, such as `TensorType`."""
    from ai_edge_litert import schema_py_generated as schema

    return {number: name for name, number in vars(getattr(schema, enum)).items() if isinstance(number, int)}


def operator_kinds(model: Any) -> list[str]:
    """Return the kind of each of a model's operator codes, CUSTOM for those that TFLite does not define."""
    names = enum_names("BuiltinOperator")
    return [names.get(max(code.builtinCode, code.deprecatedBuiltinCode), "CUSTOM") for code in model.operatorCodes]


class TfliteFloatParts:
    """See `toolchain.formats.graph.FloatParts`; covers all subgraphs."""

    def __init__(self, content: bytes) -> None:
        """Parse the file."""
        self._model = parsed(content)
        self._kinds = operator_kinds(self._model)

    def operators(self) -> set[str]:
        """Return the kinds of operators that compute in float."""
        names = enum_names("TensorType")
        return {
            kind
            for graph in self._model.subgraphs
            for node in graph.operators
            if (kind := self._kinds[node.opcodeIndex]) != "DEQUANTIZE"
            and any(names[graph.tensors[index].type] == "FLOAT32" for index in node.outputs if index >= 0)
        }

    def weights(self) -> Counter[str]:
        """Return how many float32 weights operators of each kind read."""
        names = enum_names("TensorType")
        counts: Counter[str] = Counter()
        for graph in self._model.subgraphs:
            readers: dict[int, str] = {}
            for node in graph.operators:
                kind = self._kinds[node.opcodeIndex]
                readers |= {index: kind for index in node.inputs if index not in readers}
            for number, tensor in enumerate(graph.tensors):
                shape = [] if tensor.shape is None else list(map(int, tensor.shape))
                buffer = self._model.buffers[tensor.buffer]
                if is_matrix(shape) and (buffer.data is not None or buffer.size):
                    is_float = names[tensor.type] == "FLOAT32"
                    counts[readers.get(number, "nothing") if is_float else NOT_FLOAT] += prod(shape)
        return counts

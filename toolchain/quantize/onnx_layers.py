"""The layers of an ONNX graph that have weights to quantize."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

KINDS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
RECURRENT = ("GRU", "LSTM", "RNN")
"""Their kernels take float weights alone, so in every scheme theirs are expanded when the file is loaded."""


def weighted(model: ModelProto) -> dict[str, NodeProto]:
    """Return the name of each constant float weight -> the (first) layer that multiplies by it, in graph order."""
    from onnx import TensorProto

    floats = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT}
    found: dict[str, NodeProto] = {}
    for node in model.graph.node:
        if node.op_type in KINDS and node.input[1] in floats:
            found.setdefault(node.input[1], node)
    return found


def recurrent(model: ModelProto) -> dict[str, NodeProto]:
    """Return as `weighted` the weights of recurrent layers, of the input and of the state before."""
    from onnx import TensorProto

    floats = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT}
    return {
        name: node
        for node in model.graph.node
        if node.op_type in RECURRENT
        for name in node.input[1:3]
        if name in floats
    }


def channel_axis(node: NodeProto, rank: int) -> int:
    """Return the axis of a weight along which the output channels lie."""
    if node.op_type == "Conv":
        return 0
    if node.op_type in ("ConvTranspose", *RECURRENT):
        return 1
    transposed = any(one.name == "transB" and one.i for one in node.attribute)
    return 0 if transposed else rank - 1


def wants_8_bits(node: NodeProto, shape: Sequence[int]) -> bool:
    """Return whether 4 bits are too few for a layer's weights: its error is used again and again, or few are summed."""
    return node.op_type in RECURRENT or of_one_channel(node, shape)


def of_one_channel(node: NodeProto, shape: Sequence[int]) -> bool:
    """Return whether each output channel of a convolution sees one input channel: depthwise, or the first on images."""
    return node.op_type == "Conv" and shape[1] == 1

"""The layers of an ONNX graph that have weights to quantize."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

KINDS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def weighted(model: ModelProto) -> dict[str, NodeProto]:
    """Return the name of each constant float weight -> the (first) layer that multiplies by it, in graph order."""
    from onnx import TensorProto

    floats = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT}
    found: dict[str, NodeProto] = {}
    for node in model.graph.node:
        if node.op_type in KINDS and node.input[1] in floats:
            found.setdefault(node.input[1], node)
    return found


def channel_axis(node: NodeProto, rank: int) -> int:
    """Return the axis of a weight along which the output channels lie."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    transposed = any(one.name == "transB" and one.i for one in node.attribute)
    return 0 if transposed else rank - 1


def depthwise(node: NodeProto) -> bool:
    """Return whether each output channel of a convolution sees a part of the input channels only."""
    return any(one.name == "group" and one.i > 1 for one in node.attribute)

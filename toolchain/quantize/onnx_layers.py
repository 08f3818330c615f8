"""The layers of an ONNX graph that have weights to quantize."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

KINDS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
RECURRENT = ("GRU", "LSTM", "RNN")
"""Their kernels take float weights alone, so in every scheme theirs are expanded when the file is loaded."""


def weighted(model: ir.Model) -> dict[str, ir.Node]:
    """Return the name of each constant float weight -> the (first) layer that multiplies by it, in graph order."""
    layers: dict[str, ir.Node] = {}
    for node in model.graph:
        if node.op_type in KINDS and is_float_constant(node.inputs[1]):
            layers.setdefault(name_of(node.inputs[1]), node)
    return layers


def recurrent(model: ir.Model) -> dict[str, ir.Node]:
    """Return as `weighted` the weights of recurrent layers, of the input and of the state before."""
    return {
        name_of(weight): node
        for node in model.graph
        if node.op_type in RECURRENT
        for weight in node.inputs[1:3]
        if is_float_constant(weight)
    }


def name_of(value: ir.Value | None) -> str:
    """Return a value's name, empty for an input that is left out."""
    return "" if value is None else value.name or ""


def is_float_constant(value: ir.Value | None) -> bool:
    """Return whether a value is a float32 initializer."""
    import onnx_ir as ir

    tensor = None if value is None else value.const_value
    return value is not None and value.is_initializer() and tensor is not None and tensor.dtype == ir.DataType.FLOAT


def channel_axis(node: ir.Node, rank: int) -> int:
    """Return the axis of a weight along which the output channels lie."""
    if node.op_type == "Conv":
        return 0
    if node.op_type in ("ConvTranspose", *RECURRENT):
        return 1
    return 0 if node.attributes.get_int("transB", 0) else rank - 1


def wants_8_bits(node: ir.Node, shape: Sequence[int]) -> bool:
    """Return whether 4 bits are too few for a layer's weights: its error is used again and again, or few are summed."""
    return node.op_type in RECURRENT or of_one_channel(node, shape)


def of_one_channel(node: ir.Node, shape: Sequence[int]) -> bool:
    """Return whether each output channel of a convolution sees one input channel: depthwise, or the first on images."""
    return node.op_type == "Conv" and shape[1] == 1

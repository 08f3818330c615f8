"""Raw pixels in, integers out: the borders of a QDQ graph without their QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from toolchain.core.errors import StageError
from toolchain.formats.uint8_input import PixelInput, refuse_first

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

MOVES = ("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Pad")
"""Operators that leave numbers as they are, so that sign and shift can be taken in behind them."""
SHAPED = tuple(kind for kind in MOVES if kind != "Pad")
SUMMED = ("Conv", "Gemm")


def absorb(model: ModelProto, pixels: PixelInput) -> ModelProto:
    """Return the float model (changed in place) with sign and shift in its first layer; raises StageError."""
    from onnx import numpy_helper

    if pixels.sign == 1 and pixels.shift == 0:
        return model
    graph = model.graph
    layer = _first(graph)
    stored = {tensor.name: tensor for tensor in graph.initializer}
    if layer.op_type not in SUMMED or any(name not in stored for name in layer.input[1:]):
        raise refuse_first(layer.op_type)
    weights = numpy_helper.to_array(stored[layer.input[1]])
    numbers = {one.name: one.f if one.type == one.FLOAT else one.i for one in layer.attribute}
    along = 0 if layer.op_type == "Gemm" and not numbers.get("transB") else tuple(range(1, weights.ndim))
    change = np.float32(pixels.shift * numbers.get("alpha", 1.0) / numbers.get("beta", 1.0)) * weights.sum(along)
    bias = numpy_helper.to_array(stored[layer.input[2]]) if len(layer.input) > 2 else np.float32(0)
    del layer.input[1:]
    for name, values in (("pixel_weights", weights * np.float32(pixels.sign)), ("pixel_bias", bias + change)):
        graph.initializer.append(numpy_helper.from_array(values, name))
        layer.input.append(name)
    return model


def _first(graph: GraphProto) -> NodeProto:
    """Return the layer that the input goes to; raises StageError where it goes to several places."""
    name = graph.input[0].name
    while True:
        readers = [node for node in graph.node if name in node.input]
        if len(readers) != 1:
            raise refuse_first(", ".join(node.op_type for node in readers))
        layer: NodeProto = readers[0]
        if layer.op_type not in MOVES:
            return layer
        name = layer.output[0]


def integer_borders(model: ModelProto) -> ModelProto:
    """Return the QDQ model (changed in place) that takes and gives the integers of its first and last tensor.

    Each border keeps one of its two nodes, which tells scale and zero point. Raises StageError where a border is float.
    """
    graph = model.graph
    source, sink = graph.input[0], graph.output[0]
    entry, heads = _behind_moves(graph)
    (tail,) = (node for node in graph.node if sink.name in node.output)
    if [node.op_type for node in heads] != ["QuantizeLinear"] or tail.op_type != "DequantizeLinear":
        kinds = ", ".join(node.op_type for node in (*heads, tail))
        raise StageError(f"`integer_io`: the first or last operator ({kinds}) is not quantized; leave `integer_io` out")
    for node in graph.node:
        node.input[:] = [entry if name == heads[0].output[0] else name for name in node.input]
        node.output[:] = [sink.name if name == tail.input[0] else name for name in node.output]
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for border, node in ((source, heads[0]), (sink, tail)):
        border.type.tensor_type.elem_type = types[node.input[2]]
        graph.node.remove(node)
    # What moved floats moves integers now.
    graph.ClearField("value_info")
    return model


def _behind_moves(graph: GraphProto) -> tuple[str, list[NodeProto]]:
    """Return the image as operators that only change its shape leave it, and what reads it then."""
    name = graph.input[0].name
    while True:
        readers = [node for node in graph.node if name in node.input]
        if [node.op_type in SHAPED for node in readers] != [True]:
            return name, readers
        name = readers[0].output[0]

"""Raw pixels in, integers out: a QDQ graph without the QuantizeLinear and the DequantizeLinear at its ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from toolchain.core.errors import StageError
from toolchain.formats.onnx.edit import add_constant, constant, describe_as, forget_shapes, numbers
from toolchain.formats.uint8_input import PixelInput, refuse_first

if TYPE_CHECKING:
    import onnx_ir as ir

MOVES = ("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Pad")
"""Operators that only move values, so that a later layer can take in sign and shift."""
SHAPED = tuple(kind for kind in MOVES if kind != "Pad")
SUMMED = ("Conv", "Gemm")


def absorb(model: ir.Model, pixels: PixelInput) -> bool:
    """Put sign and shift into the first layer of a float model; raises StageError."""
    if pixels.sign == 1 and pixels.shift == 0:
        return False
    graph = model.graph
    layer = _first(graph)
    constants = [constant(value) for value in layer.inputs[1:] if value is not None and value.is_initializer()]
    if layer.op_type not in SUMMED or len(constants) < len(layer.inputs) - 1 or not constants:
        raise refuse_first(layer.op_type)
    weights = numbers(layer.inputs[1])
    alpha, beta = (layer.attributes.get_float(name, 1.0) for name in ("alpha", "beta"))
    transposed = layer.op_type == "Gemm" and not layer.attributes.get_int("transB", 0)
    along = 0 if transposed else tuple(range(1, weights.ndim))
    change = np.float32(pixels.shift * alpha / beta) * weights.sum(along)
    bias = constants[1] if len(constants) > 1 else np.float32(0)
    layer.resize_inputs(3)
    layer.replace_input_with(1, add_constant(graph, "pixel_weights", weights * np.float32(pixels.sign)))
    layer.replace_input_with(2, add_constant(graph, "pixel_bias", bias + change))
    return True


def _first(graph: ir.Graph) -> ir.Node:
    """Return the first layer that reads the image; raises StageError where several operators read it."""
    value = graph.inputs[0]
    while True:
        readers = value.consumers()
        if len(readers) != 1:
            raise refuse_first(", ".join(reader.op_type for reader in readers))
        if readers[0].op_type not in MOVES:
            return readers[0]
        value = readers[0].outputs[0]


def integer_borders(model: ir.Model) -> bool:
    """Let a QDQ model take and return the integers of its first and last tensor.

    One of the two nodes at each end stays, and holds scale and zero point. Raises StageError where an end is float.
    """
    graph = model.graph
    source, sink = graph.inputs[0], graph.outputs[0]
    entry, heads = _behind_moves(graph)
    tail = sink.producer()
    if tail is None or [node.op_type for node in heads] != ["QuantizeLinear"] or tail.op_type != "DequantizeLinear":
        kinds = ", ".join(node.op_type for node in (*heads, tail) if node is not None)
        raise StageError(f"`integer_io`: the first or last operator ({kinds}) is not quantized; leave `integer_io` out")
    head, answer = heads[0], tail.inputs[0]
    assert answer is not None, "DequantizeLinear has an input"
    source.type, head_type = _integer_type(head), _integer_type(tail)
    head.outputs[0].replace_all_uses_with(entry)
    describe_as(answer, sink)
    answer.type = head_type
    graph.outputs[0] = answer
    graph.remove([head, tail], safe=True)
    # Operators between that moved floats move integers now.
    return forget_shapes(model)


def _integer_type(node: ir.Node) -> ir.TensorType:
    """Return the type of the integers that a QuantizeLinear makes or a DequantizeLinear takes: its zero point's."""
    import onnx_ir as ir

    return ir.TensorType(ir.DataType.from_numpy(numbers(node.inputs[2]).dtype))


def _behind_moves(graph: ir.Graph) -> tuple[ir.Value, list[ir.Node]]:
    """Return the image after the operators that only change its shape, and the operators that read it."""
    value = graph.inputs[0]
    while True:
        readers = list(value.consumers())
        if [node.op_type in SHAPED for node in readers] != [True]:
            return value, readers
        value = readers[0].outputs[0]

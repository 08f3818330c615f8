"""Wider scales for weights whose bias would not fit into 32 bits.

A static file adds biases as integers in units of input scale times weight scale. Where a channel's weights are tiny and
its bias is not, as behind a batch norm that nearly switched the channel off, that integer saturates or wraps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from toolchain.formats.onnx.edit import constant, numbers, set_constant
from toolchain.quantize.onnx_layers import name_of

if TYPE_CHECKING:
    import onnx_ir as ir

ROOM = 2**26
"""Largest integer of a bias. 32 bits hold 32 times as much, but the products of the layer are added to it, and the
kernels of XNNPACK for 4 bits compute 16 times that sum. What wider scales cost stays below a millionth of the bias.
"""
STORED = "_quantized"
"""Suffix that onnxruntime.quantization gives the name of a weight's integers."""

Floats = NDArray[np.float32]


class Weight(NamedTuple):
    """Integers and their scale: one number for each channel along `axis`, or one of all."""

    integers: NDArray[np.int8]
    scale: Floats
    axis: int


def wider(weight: Weight, floats: Floats, bias: Floats, unit: float) -> Weight | None:
    """Return the weight with the scale that its bias needs, None where the bias fits; unit: the input's scale."""
    # Groups of a ConvTranspose share the scales of their channels, and one scale is shared by all.
    least = np.abs(bias.astype(np.float64)).reshape(-1, weight.scale.size).max(axis=0) / ROOM / unit
    if (least <= weight.scale.reshape(-1)).all():
        return None
    scale = np.maximum(weight.scale, least.reshape(weight.scale.shape)).astype(np.float32)
    shape = [1] * floats.ndim
    shape[weight.axis] = scale.size
    limit = np.abs(weight.integers.astype(np.int16)).max()
    rounded = np.clip(np.rint(floats / scale.reshape(shape)), -limit, limit).astype(np.int8)
    same = (scale == weight.scale).reshape(shape)
    return Weight(np.where(same, weight.integers, rounded), scale, weight.axis)


def onnx_with_room(model: ir.Model, source: ir.Model) -> bool:
    """Widen the scales of a QDQ model until every float bias fits; `source` holds the weights in float."""
    changed = False
    for node in model.graph:
        bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
        readers = [reader for value in node.inputs[:2] if (reader := _dequantizer(value))]
        if bias is None or len(readers) < 2:
            continue
        unit, (integers, scale) = readers[0].inputs[1], readers[1].inputs[:2]
        original = source.graph.initializers.get(name_of(integers).removesuffix(STORED))
        if original is None or integers is None or scale is None:
            continue
        weight = Weight(numbers(integers), numbers(scale), readers[1].attributes.get_int("axis", 0))
        if widened := wider(weight, numbers(original), bias, float(numbers(unit))):
            set_constant(integers, widened.integers)
            set_constant(scale, widened.scale)
            changed = True
    return changed


def _dequantizer(value: ir.Value | None) -> ir.Node | None:
    """Return the DequantizeLinear that makes a value, None where anything else does."""
    reader = None if value is None else value.producer()
    return reader if reader is not None and reader.op_type == "DequantizeLinear" else None


def tflite_with_room(content: bytes, source: bytes) -> bytes:
    """Return the quantized file with scales so wide that every bias fits; `source`: its float file, same names."""
    from ai_edge_litert import schema_py_generated as schema

    from toolchain.formats.tflite.slim import packed, unpacked

    model, exact = unpacked(content), unpacked(source)
    graph, floats = model.subgraphs[0], {tensor.name: tensor for tensor in exact.subgraphs[0].tensors}
    kinds = schema.BuiltinOperator
    changed = False
    for node in graph.operators:
        kind = model.operatorCodes[node.opcodeIndex].builtinCode
        # Other operators have integer inputs too, such as the begin and size of a slice.
        if kind not in (kinds.CONV_2D, kinds.DEPTHWISE_CONV_2D, kinds.TRANSPOSE_CONV, kinds.FULLY_CONNECTED):
            continue
        # The first input of a transposed convolution is the shape of its output.
        order = (2, 1, 3) if kind == kinds.TRANSPOSE_CONV else (0, 1, 2)
        indices = [node.inputs[index] for index in order if index < len(node.inputs)]
        given, *constants = (graph.tensors[index] for index in indices if index >= 0)
        originals = [_floats(exact, floats[tensor.name]) for tensor in constants if tensor.name in floats]
        if len(originals) == 2 and constants[1].type in (schema.TensorType.INT32, schema.TensorType.INT64):
            changed |= _widened(model, given, constants, originals)
    if not changed:
        return content
    return packed(model, len(content))


def _widened(model: Any, given: Any, constants: list[Any], originals: list[Floats | None]) -> bool:
    """Widen the scales of one operator's weights as its bias needs; return whether that changed anything."""
    from ai_edge_litert import schema_py_generated as schema

    (weights, bias), (exact, exact_bias) = constants, originals
    if exact is None or exact_bias is None:
        return False
    four, unit = weights.type == schema.TensorType.INT4, float(given.quantization.scale[0])
    widened = wider(_weight(model, weights, four=four), exact, exact_bias, unit)
    if widened is None:
        return False
    scale = widened.scale.astype(np.float64) * unit
    wide = np.int32 if bias.type == schema.TensorType.INT32 else np.int64
    _store(model, weights, _packed(widened.integers) if four else widened.integers, widened.scale)
    _store(model, bias, np.rint(exact_bias / scale).astype(wide), scale.astype(np.float32))
    return True


def _floats(model: Any, tensor: Any) -> Floats | None:
    """Return what a float file holds under a tensor, None where it is computed."""
    data = model.buffers[tensor.buffer].data
    return None if data is None else np.frombuffer(bytes(data), np.float32).reshape(tensor.shape)


def _weight(model: Any, tensor: Any, *, four: bool) -> Weight:
    integers = np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.int8)
    if four:
        # Two in each byte, the first one in the lower half.
        halves = np.stack([np.left_shift(integers, 4) >> 4, integers >> 4], 1).reshape(-1)
        integers = halves[: np.prod(tensor.shape)]
    quantization = tensor.quantization
    return Weight(
        integers.reshape(tensor.shape), np.array(quantization.scale, np.float32), quantization.quantizedDimension
    )


def _packed(integers: NDArray[np.int8]) -> NDArray[np.uint8]:
    halves = np.append(integers.reshape(-1), np.int8(0))[: integers.size + integers.size % 2].view(np.uint8) & 15
    packed: NDArray[np.uint8] = np.bitwise_or(halves[::2], np.left_shift(halves[1::2], 4)).astype(np.uint8)
    return packed


def _store(model: Any, tensor: Any, integers: NDArray[Any], scale: Floats) -> None:
    """Store a tensor in a new buffer, since other tensors may share the old one."""
    from ai_edge_litert import schema_py_generated as schema

    buffer = schema.BufferT()
    buffer.data = np.frombuffer(integers.tobytes(), np.uint8)
    tensor.buffer = len(model.buffers)
    model.buffers.append(buffer)
    tensor.quantization.scale = scale

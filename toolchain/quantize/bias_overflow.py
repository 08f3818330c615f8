"""Wider scales for weights whose bias would not fit into 32 bits.

A static file adds biases as integers in units of input scale times weight scale. Where a channel's weights are tiny and
its bias is not, as behind a batch norm that all but switched the channel off, that integer is cut off or wraps.
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
"""Of onnxruntime.quantization: what the name of a weight's integers ends in."""

Floats = NDArray[np.float32]


class Weight(NamedTuple):
    """Integers and their scale: one number for each channel along `axis`, or one of all."""

    integers: NDArray[np.int8]
    scale: Floats
    axis: int


def wider(held: Weight, floats: Floats, bias: Floats, unit: float) -> Weight | None:
    """Return a weight with the scale that its bias needs, or None where there is room; unit: the input's scale."""
    # Groups of a ConvTranspose share the scales of their channels, and one scale is shared by all.
    least = np.abs(bias.astype(np.float64)).reshape(-1, held.scale.size).max(axis=0) / ROOM / unit
    if (least <= held.scale.reshape(-1)).all():
        return None
    scale = np.maximum(held.scale, least.reshape(held.scale.shape)).astype(np.float32)
    shape = [1] * floats.ndim
    shape[held.axis] = scale.size
    limit = np.abs(held.integers.astype(np.int16)).max()
    rounded = np.clip(np.rint(floats / scale.reshape(shape)), -limit, limit).astype(np.int8)
    same = (scale == held.scale).reshape(shape)
    return Weight(np.where(same, held.integers, rounded), scale, held.axis)


def onnx_with_room(model: ir.Model, source: ir.Model) -> bool:
    """Let all float biases of a QDQ model have room; `source` holds its weights in float."""
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
        held = Weight(numbers(integers), numbers(scale), readers[1].attributes.get_int("axis", 0))
        if widened := wider(held, numbers(original), bias, float(numbers(unit))):
            set_constant(integers, widened.integers)
            set_constant(scale, widened.scale)
            changed = True
    return changed


def _dequantizer(value: ir.Value | None) -> ir.Node | None:
    """Return the DequantizeLinear that makes a value, None where anything else does."""
    reader = None if value is None else value.producer()
    return reader if reader is not None and reader.op_type == "DequantizeLinear" else None


def tflite_with_room(content: bytes, source: bytes) -> bytes:
    """Return a quantized file whose integer biases all have room; `source` is its float file, with the same names."""
    from ai_edge_litert import schema_py_generated as schema

    from toolchain.formats.tflite.slim import packed, unpacked

    model, exact = unpacked(content), unpacked(source)
    graph, floats = model.subgraphs[0], {tensor.name: tensor for tensor in exact.subgraphs[0].tensors}
    kinds = schema.BuiltinOperator
    changed = False
    for node in graph.operators:
        kind = model.operatorCodes[node.opcodeIndex].builtinCode
        # Others have whole numbers for inputs too: a slice its beginning and its size.
        if kind not in (kinds.CONV_2D, kinds.DEPTHWISE_CONV_2D, kinds.TRANSPOSE_CONV, kinds.FULLY_CONNECTED):
            continue
        # A transposed convolution takes the shape of its answer first.
        order = (2, 1, 3) if kind == kinds.TRANSPOSE_CONV else (0, 1, 2)
        indices = [node.inputs[place] for place in order if place < len(node.inputs)]
        given, *constants = (graph.tensors[index] for index in indices if index >= 0)
        originals = [_floats(exact, floats[one.name]) for one in constants if one.name in floats]
        if len(originals) == 2 and constants[1].type in (schema.TensorType.INT32, schema.TensorType.INT64):
            changed |= _widened(model, given, constants, originals)
    if not changed:
        return content
    return packed(model, len(content))


def _widened(model: Any, given: Any, constants: list[Any], originals: list[Floats | None]) -> bool:
    """Give the weights of one operator the scale that its bias needs; return whether that changed anything."""
    from ai_edge_litert import schema_py_generated as schema

    (weights, bias), (exact, exact_bias) = constants, originals
    if exact is None or exact_bias is None:
        return False
    four, unit = weights.type == schema.TensorType.INT4, float(given.quantization.scale[0])
    found = wider(_weight(model, weights, four=four), exact, exact_bias, unit)
    if found is None:
        return False
    scale = found.scale.astype(np.float64) * unit
    wide = np.int32 if bias.type == schema.TensorType.INT32 else np.int64
    _store(model, weights, _packed(found.integers) if four else found.integers, found.scale)
    _store(model, bias, np.rint(exact_bias / scale).astype(wide), scale.astype(np.float32))
    return True


def _floats(model: Any, tensor: Any) -> Floats | None:
    """Return what a float file holds under a tensor, None where it is computed."""
    data = model.buffers[tensor.buffer].data
    return None if data is None else np.frombuffer(bytes(data), np.float32).reshape(tensor.shape)


def _weight(model: Any, tensor: Any, *, four: bool) -> Weight:
    integers = np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.int8)
    if four:
        # Two a byte, the first one in the lower half.
        halves = np.stack([np.left_shift(integers, 4) >> 4, integers >> 4], 1).reshape(-1)
        integers = halves[: np.prod(tensor.shape)]
    how = tensor.quantization
    return Weight(integers.reshape(tensor.shape), np.array(how.scale, np.float32), how.quantizedDimension)


def _packed(integers: NDArray[np.int8]) -> NDArray[np.uint8]:
    halves = np.append(integers.reshape(-1), np.int8(0))[: integers.size + integers.size % 2].view(np.uint8) & 15
    packed: NDArray[np.uint8] = np.bitwise_or(halves[::2], np.left_shift(halves[1::2], 4)).astype(np.uint8)
    return packed


def _store(model: Any, tensor: Any, integers: NDArray[Any], scale: Floats) -> None:
    """Store a tensor in a buffer of its own, since others may share the old one."""
    from ai_edge_litert import schema_py_generated as schema

    buffer = schema.BufferT()
    buffer.data = np.frombuffer(integers.tobytes(), np.uint8)
    tensor.buffer = len(model.buffers)
    model.buffers.append(buffer)
    tensor.quantization.scale = scale

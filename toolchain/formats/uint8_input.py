"""Raw pixels as the input of a file: the preprocessing becomes the quantization of its first tensor.

Where the first tensor cannot express all of it, the first layer of the float file absorbs the rest (`absorb_onnx`,
`absorb_tflite`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from targets.preprocess import Preprocess
from toolchain.core.errors import StageError
from toolchain.formats.onnx.edit import add_constant, constant, describe_as, forget_shapes, numbers
from toolchain.formats.tflite.file import operator_kinds, packed, parsed, slim_tflite

if TYPE_CHECKING:
    import onnx_ir as ir

_RESHAPES = ("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity")
_ONNX_MOVES = (*_RESHAPES, "Pad")
_TFLITE_MOVES = ("RESHAPE", "TRANSPOSE", "PAD", "SQUEEZE", "EXPAND_DIMS")
"""Operators that only move values, so that a layer behind them can absorb sign and shift."""
_TFLITE_LAYERS = {"CONV_2D": (1, 2, 3), "DEPTHWISE_CONV_2D": (0, 1, 2), "FULLY_CONNECTED": (1,)}
"""Layer -> the axes of its weights that do not count output channels."""


@dataclass(frozen=True)
class PixelInput:
    """A model's input x as pixels p: x = sign * scale * (p - zero_point) + shift.

    A file declares `scale` and the integer `zero_point`, at no cost. The first layer absorbs the rest: its weights are
    multiplied by `sign` (-1 where the model wants dark ink on white), and their sums times `shift` (less than half a
    grey level) are added to its bias. Padding is zero in x, and so `zero_point` in pixels.
    """

    preprocess: Preprocess
    scale: float
    zero_point: int
    sign: int
    shift: float

    @classmethod
    def of(cls, preprocess: Preprocess) -> PixelInput:
        """Return the pixel input for a preprocessing; raises StageError where its mean is no pixel value (0 to 255)."""
        unit = 255.0 if preprocess.scale == "0-1" else 1.0
        zero = preprocess.mean * unit
        if preprocess.invert:
            zero = 255 - zero
        if not 0 <= zero <= 255:
            raise StageError(
                f"`integer_io`: a mean of {preprocess.mean:g} is outside of what pixels can be; leave `integer_io` out"
            )
        sign, scale, point = -1 if preprocess.invert else 1, 1 / (unit * preprocess.std), round(zero)
        return cls(preprocess, scale, point, sign, sign * scale * (point - zero))

    @property
    def given(self) -> Preprocess:
        """Return the preprocessing that is left to the caller: pixels are turned as in training, and stay uint8."""
        return replace(self.preprocess, dtype="uint8")

    def values(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return scale * (p - zero_point) of uint8 images [N, 28, 28]: their values before sign and shift."""
        pixels = self.given.apply(images).astype(np.float32)
        return (pixels - np.float32(self.zero_point)) * np.float32(self.scale)


def _refused(kinds: Sequence[str]) -> StageError:
    """Return the error for a model whose first layer cannot absorb sign and shift; kinds: what reads the input."""
    return StageError(
        f"integer_io: the input goes to {', '.join(kinds)}, but a mean between two grey levels, or an inversion, must "
        "go into the weights of a convolution or dense layer; leave `integer_io` out"
    )


def absorb_onnx(model: ir.Model, pixels: PixelInput) -> bool:
    """Put sign and shift into the first layer of a float model; raises StageError where it cannot hold them."""
    if pixels.sign == 1 and pixels.shift == 0:
        return False
    graph = model.graph
    _, readers = _past_moves(graph, _ONNX_MOVES)
    refusal = _refused([reader.op_type for reader in readers])
    if len(readers) != 1 or readers[0].op_type not in ("Conv", "Gemm"):
        raise refusal
    layer = readers[0]
    constants = [constant(value) for value in layer.inputs[1:] if value is not None and value.is_initializer()]
    if len(constants) < len(layer.inputs) - 1 or not constants:
        raise refusal
    weights = numbers(layer.inputs[1])
    alpha, beta = (layer.attributes.get_float(name, 1.0) for name in ("alpha", "beta"))
    transposed = layer.op_type == "Gemm" and not layer.attributes.get_int("transB", 0)
    axes = 0 if transposed else tuple(range(1, weights.ndim))
    change = np.float32(pixels.shift * alpha / beta) * weights.sum(axes)
    bias = constants[1] if len(constants) > 1 else np.float32(0)
    layer.resize_inputs(3)
    layer.replace_input_with(1, add_constant(graph, "pixel_weights", weights * np.float32(pixels.sign)))
    layer.replace_input_with(2, add_constant(graph, "pixel_bias", bias + change))
    return True


def integer_io(model: ir.Model) -> bool:
    """Let a QDQ model take and return integers, without the QuantizeLinear and the DequantizeLinear at its ends.

    The other node of each pair stays, and holds scale and zero point. Raises StageError where an end is float.
    """
    graph = model.graph
    source, sink = graph.inputs[0], graph.outputs[0]
    image, readers = _past_moves(graph, _RESHAPES)
    last = sink.producer()
    if last is None or [node.op_type for node in readers] != ["QuantizeLinear"] or last.op_type != "DequantizeLinear":
        kinds = ", ".join(node.op_type for node in (*readers, last) if node is not None)
        raise StageError(f"`integer_io`: the first or last operator ({kinds}) is not quantized; leave `integer_io` out")
    first, logits = readers[0], last.inputs[0]
    assert logits is not None, "DequantizeLinear has an input"
    source.type, logits_type = _integer_type(first), _integer_type(last)
    first.outputs[0].replace_all_uses_with(image)
    describe_as(logits, sink)
    logits.type = logits_type
    graph.outputs[0] = logits
    graph.remove([first, last], safe=True)
    # Operators between that moved floats move integers now.
    return forget_shapes(model)


def _integer_type(node: ir.Node) -> ir.TensorType:
    """Return the type of the integers that a QuantizeLinear makes or a DequantizeLinear takes: its zero point's."""
    import onnx_ir as ir

    return ir.TensorType(ir.DataType.from_numpy(numbers(node.inputs[2]).dtype))


def _past_moves(graph: ir.Graph, moves: Sequence[str]) -> tuple[ir.Value, list[ir.Node]]:
    """Return the image behind the operators that only move it, and the operators that read it there."""
    value = graph.inputs[0]
    while True:
        readers = list(value.consumers())
        if [node.op_type in moves for node in readers] != [True]:
            return value, readers
        value = readers[0].outputs[0]


def absorb_tflite(content: bytes, pixels: PixelInput) -> bytes:
    """Return the float file with sign and shift in its first layer; raises StageError where it cannot hold them."""
    if pixels.sign == 1 and pixels.shift == 0:
        return content
    from ai_edge_litert.schema_py_generated import BufferT

    # Slim, since then no weights stand behind the FlatBuffer.
    model = parsed(bytes(slim_tflite(content)))
    graph = model.subgraphs[0]
    kind, layer = _first_tflite_layer(model)
    if kind not in _TFLITE_LAYERS or len(layer.inputs) < 3 or layer.inputs[2] < 0:
        raise _refused([kind])
    weights, bias = (_floats(model, graph.tensors[index]) for index in layer.inputs[1:3])
    change = np.float32(pixels.shift) * weights.sum(_TFLITE_LAYERS[kind])
    changed = {layer.inputs[1]: weights * np.float32(pixels.sign), layer.inputs[2]: bias + change}
    for index, values in changed.items():
        # A new buffer, since other tensors may have the old one too.
        graph.tensors[index].buffer = len(model.buffers)
        buffer = BufferT()
        buffer.data = np.frombuffer(values.astype(np.float32).tobytes(), np.uint8)
        model.buffers.append(buffer)
    return packed(model, len(content))


def _first_tflite_layer(model: Any) -> tuple[str, Any]:
    """Return kind and operator of the first layer; raises StageError where several operators read the image."""
    kinds = operator_kinds(model)
    graph = model.subgraphs[0]
    tensor = graph.inputs[0]
    while True:
        readers = [node for node in graph.operators if tensor in node.inputs]
        reader_kinds = [kinds[node.opcodeIndex] for node in readers]
        if len(readers) != 1:
            raise _refused(reader_kinds)
        if reader_kinds[0] not in _TFLITE_MOVES:
            return reader_kinds[0], readers[0]
        tensor = readers[0].outputs[0]


def _floats(model: Any, tensor: Any) -> Any:
    return np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.float32).reshape(tensor.shape)

"""Raw pixels in: sign and shift of a TFLite file's input, taken in by its first layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from toolchain.formats.tflite.layers import operator_kinds, parsed
from toolchain.formats.tflite.slim import packed, slim_tflite
from toolchain.formats.uint8_input import PixelInput, refuse_first

MOVES = ("RESHAPE", "TRANSPOSE", "PAD", "SQUEEZE", "EXPAND_DIMS")
"""Operators that leave numbers as they are, so that sign and shift can be taken in behind them."""
SUMMED = {"CONV_2D": (1, 2, 3), "DEPTHWISE_CONV_2D": (0, 1, 2), "FULLY_CONNECTED": (1,)}
"""Layer -> the axes of its weights that do not count output channels."""


def absorb(content: bytes, pixels: PixelInput) -> bytes:
    """Return the float file with sign and shift in its first layer; raises StageError."""
    if pixels.sign == 1 and pixels.shift == 0:
        return content
    from ai_edge_litert.schema_py_generated import BufferT

    # Slim, since then no weights stand behind the FlatBuffer.
    model = parsed(bytes(slim_tflite(content)))
    graph = model.subgraphs[0]
    kind, layer = _first(model)
    if kind not in SUMMED or len(layer.inputs) < 3 or layer.inputs[2] < 0:
        raise refuse_first(kind)
    weights, bias = (_floats(model, graph.tensors[index]) for index in layer.inputs[1:3])
    change = np.float32(pixels.shift) * weights.sum(SUMMED[kind])
    changed = {layer.inputs[1]: weights * np.float32(pixels.sign), layer.inputs[2]: bias + change}
    for index, values in changed.items():
        # A new buffer, since the old one may be that of other tensors too.
        graph.tensors[index].buffer = len(model.buffers)
        buffer = BufferT()
        buffer.data = np.frombuffer(values.astype(np.float32).tobytes(), np.uint8)
        model.buffers.append(buffer)
    return packed(model, len(content))


def _first(model: Any) -> tuple[str, Any]:
    """Return operator and node that the input goes to; raises StageError where it goes to several places."""
    codes = operator_kinds(model)
    graph = model.subgraphs[0]
    tensor = graph.inputs[0]
    while True:
        readers = [node for node in graph.operators if tensor in node.inputs]
        kinds = [codes[node.opcodeIndex] for node in readers]
        if len(readers) != 1:
            raise refuse_first(", ".join(kinds))
        if kinds[0] not in MOVES:
            return kinds[0], readers[0]
        tensor = readers[0].outputs[0]


def _floats(model: Any, tensor: Any) -> Any:
    return np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.float32).reshape(tensor.shape)

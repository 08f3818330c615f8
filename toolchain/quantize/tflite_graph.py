"""The graph of a TFLite file: which operators stay in float, and edits before and after litert-quantizer.

Some operators stay in float however their ranges are chosen (`unsuited`). A divisor or a variance that rounds to zero
gives infinity, and LiteRT's integer DIV stops the run. So the statistics that a norm divides by are computed in float,
and so is what they scale, until its values are normalised. A range that includes a mask of minus infinity has no
precision for anything else, so everything from the mask to its softmax is in float too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolchain.formats.tflite.file import operator_kinds, packed, unpacked
from toolchain.quantize.weights import Floats, Weight, wider

STATISTICS = ("ABS", "MAXIMUM", "MEAN", "POW", "RESHAPE", "SQRT", "SQUARE", "SQUARED_DIFFERENCE", "SUB", "SUM")
"""Operators that compute a divisor; ADD and MUL count too where they have one computed input."""
MASKS = ("ADD", "MINIMUM", "SELECT", "SELECT_V2", "SUB")
"""Operators by which a mask excludes values from a softmax."""
MASKED = -1e3
"""A constant of this or less before a softmax is a mask: its exp is negligible beside that of any value."""
MASK_VIEWS = ("BROADCAST_TO", "EXPAND_DIMS", "RESHAPE", "SQUEEZE", "TRANSPOSE")
ROOTS = ("RSQRT", "SQRT")
BIAS = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 3}
"""Operator -> index of the input that holds its bias. The weights come before it, the layer's input before those, but
for a transposed convolution, which has its input between the two."""


def operators(model: Any, graph: Any) -> list[tuple[str, Any]]:
    """Return the kind of each operator of a graph with the operator itself, in execution order."""
    kinds = operator_kinds(model)
    return [(kinds[node.opcodeIndex], node) for node in graph.operators]


def unsuited(model: Any, *, wide: bool) -> Iterator[Any]:
    """Yield the operators of the first subgraph that must stay in float.

    wide: activations have 16 bits, so a constant matrix, of 8 bits, cannot be the first factor of a product.
    """
    graph = model.subgraphs[0]
    nodes, producers = operators(model, graph), _producers(graph)
    variables = {*producers, *graph.inputs}

    def computed(index: int) -> set[int]:
        return {int(tensor) for tensor in nodes[index][1].inputs if int(tensor) in variables}

    def statistics_of(tensor: int) -> set[int]:
        indices, pending = set[int](), [tensor]
        while pending:
            index = producers.get(pending.pop())
            if index is None or index in indices:
                continue
            kind = nodes[index][0]
            if kind in STATISTICS or (kind in ("ADD", "MUL") and len(computed(index)) == 1):
                indices.add(index)
                pending += computed(index)
        return indices

    chosen = {index for softmax, chain in masked(model) for index in (softmax, *chain)}
    scaled: set[int] = set()
    for index, (kind, node) in enumerate(nodes):
        if kind in (*ROOTS, "DIV"):
            chosen |= {index, *statistics_of(int(node.inputs[-1]))}
        follows = kind in ("MUL", "RESHAPE") and computed(index) & scaled
        if kind in ROOTS or follows or (kind in ("ADD", "SUB") and computed(index) and computed(index) <= scaled):
            chosen.add(index)
            scaled |= {int(tensor) for tensor in node.outputs}
        if wide and kind == "BATCH_MATMUL" and int(node.inputs[0]) not in variables:
            chosen.add(index)
    yield from (nodes[index][1] for index in sorted(chosen))


def masked(model: Any) -> Iterator[tuple[int, frozenset[int]]]:
    """Yield the index of each masked softmax, and the indices of the operators between its masks and it."""
    graph = model.subgraphs[0]
    chains: dict[int, frozenset[int]] = {}
    for index, (kind, node) in enumerate(operators(model, graph)):
        inputs = [int(tensor) for tensor in node.inputs]
        if kind == "SOFTMAX" and (chain := chains.get(inputs[0])):
            yield index, chain
        elif kind in (*MASK_VIEWS, *MASKS):
            before = frozenset[int]().union(*(chains.get(tensor, ()) for tensor in inputs))
            adds_mask = kind in MASKS and _smallest_constant(model, graph, inputs) <= MASKED
            if before or adds_mask:
                chains |= dict.fromkeys(map(int, node.outputs), before | {index})


def _smallest_constant(model: Any, graph: Any, tensors: Iterable[int]) -> float:
    """Return the smallest value of the float constants among `tensors`; 0 without any negative one."""
    from ai_edge_litert.schema_py_generated import TensorType

    constants = (graph.tensors[index] for index in tensors if index >= 0)
    stored = (model.buffers[tensor.buffer].data for tensor in constants if tensor.type == TensorType.FLOAT32)
    return min((np.frombuffer(bytes(data), "<f4").min(initial=0) for data in stored if data is not None), default=0)


def _producers(graph: Any) -> dict[int, int]:
    """Return tensor -> index of the operator that computes it."""
    return {int(tensor): index for index, node in enumerate(graph.operators) for tensor in node.outputs}


def quantizable(content: bytes) -> bytes:
    """Return an equivalent file whose biases are vectors and whose tensor names are unique across subgraphs.

    litert-quantizer gives a bias a scale for each channel along its first axis. That is the wrong axis of
    [1, 1, 1, channels], the shape that the converter gives a bias multiplied by a layer scale.
    """
    model = unpacked(content)
    changed = False
    for graph in model.subgraphs:
        for kind, node in operators(model, graph):
            if kind not in BIAS or not _has_input(node, BIAS[kind]):
                continue
            bias = graph.tensors[node.inputs[BIAS[kind]]]
            if bias.shape is not None and len(bias.shape) > 1 and bias.shape[-1] == np.prod(bias.shape):
                bias.shape = bias.shape[-1:]
                changed = True
    used_names: set[bytes] = set()
    for number, graph in enumerate(model.subgraphs):
        for tensor in graph.tensors:
            if number and tensor.name in used_names:
                tensor.name += f";{number}".encode()
                changed = True
        used_names |= {tensor.name for tensor in graph.tensors}
    return packed(model, len(content)) if changed else content


def _has_input(node: Any, position: int) -> bool:
    return position < len(node.inputs) and node.inputs[position] >= 0


def widen_scales(content: bytes, source: bytes) -> bytes:
    """Return the quantized file with scales so wide that every bias fits; `source`: its float file, same names."""
    model, exact = unpacked(content), unpacked(source)
    graph, floats = model.subgraphs[0], {tensor.name: tensor for tensor in exact.subgraphs[0].tensors}
    changed = False
    for kind, node in operators(model, graph):
        # Other operators have integer inputs too, such as the begin and size of a slice.
        if kind not in BIAS:
            continue
        order = (2, 1, 3) if kind == "TRANSPOSE_CONV" else (0, 1, 2)
        tensors = [graph.tensors[node.inputs[position]] for position in order if _has_input(node, position)]
        originals = [_floats(exact, floats[tensor.name]) for tensor in tensors[1:] if tensor.name in floats]
        if len(originals) == 2:
            changed |= _widened(model, tensors, originals)
    return packed(model, len(content)) if changed else content


def _widened(model: Any, tensors: list[Any], originals: list[Floats | None]) -> bool:
    """Widen the scales of one layer's weights as its bias needs; return whether that changed anything.

    tensors: input, weights and bias of the layer. originals: weights and bias in float.
    """
    from ai_edge_litert.schema_py_generated import TensorType

    (layer_input, weights, bias), (exact, exact_bias) = tensors, originals
    if exact is None or exact_bias is None or bias.type not in (TensorType.INT32, TensorType.INT64):
        return False
    four_bits, unit = weights.type == TensorType.INT4, float(layer_input.quantization.scale[0])
    widened = wider(_weight(model, weights, four_bits=four_bits), exact, exact_bias, unit)
    if widened is None:
        return False
    scale = widened.scale.astype(np.float64) * unit
    dtype = np.int32 if bias.type == TensorType.INT32 else np.int64
    store(model, weights, _in_halves(widened.integers) if four_bits else widened.integers)
    store(model, bias, np.rint(exact_bias / scale).astype(dtype))
    weights.quantization.scale, bias.quantization.scale = widened.scale, scale.astype(np.float32)
    return True


def _floats(model: Any, tensor: Any) -> Floats | None:
    """Return the constant that a float file holds for a tensor, None where the tensor is computed."""
    data = model.buffers[tensor.buffer].data
    return None if data is None else np.frombuffer(bytes(data), np.float32).reshape(tensor.shape)


def _weight(model: Any, tensor: Any, *, four_bits: bool) -> Weight:
    integers = np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.int8)
    if four_bits:
        # Two in each byte, the first one in the lower half.
        halves = np.stack([np.left_shift(integers, 4) >> 4, integers >> 4], 1).reshape(-1)
        integers = halves[: np.prod(tensor.shape)]
    scale, axis = np.array(tensor.quantization.scale, np.float32), tensor.quantization.quantizedDimension
    return Weight(integers.reshape(tensor.shape), scale, axis)


def _in_halves(integers: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Return 4-bit integers two to a byte, the first one in the lower half."""
    halves = np.append(integers.reshape(-1), np.int8(0))[: integers.size + integers.size % 2].view(np.uint8) & 15
    joined: NDArray[np.uint8] = np.bitwise_or(halves[::2], np.left_shift(halves[1::2], 4)).astype(np.uint8)
    return joined


def store(model: Any, tensor: Any, values: NDArray[Any]) -> None:
    """Store the values of a tensor in a new buffer, since other tensors may share the old one."""
    from ai_edge_litert.schema_py_generated import BufferT

    buffer = BufferT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    tensor.buffer = len(model.buffers)
    model.buffers.append(buffer)

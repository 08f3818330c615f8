"""What litert-quantizer needs a float TFLite file to look like."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

BIAS = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 3}
"""Operator -> which input holds its bias."""


def quantizable(content: bytes) -> bytes:
    """Return the file, which computes the same, with vectors for biases and no tensor name in two subgraphs.

    litert-quantizer gives a bias one scale for each channel along its first axis, which is the wrong one in
    [1, 1, 1, channels], as the converter writes a bias that it multiplied by a layer scale.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    from toolchain.formats.tflite.slim import unpacked

    model = unpacked(content)
    places = {getattr(schema.BuiltinOperator, kind): place for kind, place in BIAS.items()}
    changed = False
    for graph in model.subgraphs:
        for bias in _biases(model, graph, places):
            if bias.shape is not None and len(bias.shape) > 1 and bias.shape[-1] == np.prod(bias.shape):
                bias.shape = bias.shape[-1:]
                changed = True
    taken: set[bytes] = set()
    for number, graph in enumerate(model.subgraphs):
        for tensor in graph.tensors:
            if number and tensor.name in taken:
                tensor.name += f";{number}".encode()
                changed = True
        taken |= {tensor.name for tensor in graph.tensors}
    if not changed:
        return content
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _biases(model: Any, graph: Any, places: dict[int, int]) -> Iterator[Any]:
    for node in graph.operators:
        place = places.get(model.operatorCodes[node.opcodeIndex].builtinCode)
        if place is not None and place < len(node.inputs) and node.inputs[place] >= 0:
            yield graph.tensors[node.inputs[place]]

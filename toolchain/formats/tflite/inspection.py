"""A .tflite file, taken apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

from targets.artifact import file_sha256
from targets.errors import first_line
from toolchain.core.errors import CheckpointError
from toolchain.formats.inspection import (
    InspectedLayer,
    Inspection,
    StoredTensor,
    largest_first,
    left_out,
    sidecar_facts,
)
from toolchain.formats.tflite.file import enum_names, mapped, operator_kinds, parsed

Shape = tuple[int, ...]

_LEFT_OUT = (
    "CUSTOM", "DELEGATE", "WHILE", "IF", "CALL", "CALL_ONCE", "RFFT2D", "LSTM", "SVDF", "RNN", "CONV_3D_TRANSPOSE",
    "UNIDIRECTIONAL_SEQUENCE_RNN", "BIDIRECTIONAL_SEQUENCE_RNN", "BIDIRECTIONAL_SEQUENCE_LSTM", "STABLEHLO_CONVOLUTION",
    "STABLEHLO_DOT_GENERAL", "STABLEHLO_COMPOSITE", "STABLEHLO_CUSTOM_CALL", "STABLEHLO_WHILE",
)  # fmt: skip
_LSTM_WEIGHTS = slice(1, 9)
_LSTM_PROJECTION = slice(16, 17)


def tflite_macs(kind: str, read: list[Shape], made: Shape, *, turned: bool) -> int | None:
    """Return an operator's products; None of one that multiplies and that nobody counts.

    read: the shapes of its inputs, empty for those that are left out. turned: whether a matrix product reads its first
    input with the last two axes exchanged.
    """
    if kind in _LEFT_OUT:
        return None
    rule = _RULES.get(kind)
    if rule is None:
        return 0
    return prod(made) * read[0][-2] if turned else rule(read, made)


def _sequence(read: list[Shape], _: Shape) -> int:
    weights = [*read[_LSTM_WEIGHTS], *read[_LSTM_PROJECTION]]
    return prod(read[0][:2]) * sum(prod(shape) for shape in weights if shape)


_RULES: dict[str, Callable[[list[Shape], Shape], int]] = {
    "CONV_2D": lambda read, made: prod(made) * prod(read[1][1:]),
    "CONV_3D": lambda read, made: prod(made) * prod(read[1][:-1]),
    "DEPTHWISE_CONV_2D": lambda read, made: prod(made) * prod(read[1][1:3]),
    "TRANSPOSE_CONV": lambda read, _: prod(read[2]) * prod(read[1][:3]),
    "FULLY_CONNECTED": lambda read, made: prod(made) * read[1][-1],
    "BATCH_MATMUL": lambda read, made: prod(made) * read[0][-1],
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _sequence,
}


_BITS = {
    "INT4": 4,
    "INT8": 8,
    "UINT8": 8,
    "BOOL": 8,
    "INT16": 16,
    "UINT16": 16,
    "FLOAT16": 16,
    "INT64": 64,
    "FLOAT64": 64,
}


def inspect_tflite(path: Path) -> Inspection:
    """Return what a TFLite file is, its first subgraph only. Raises CheckpointError when it cannot be read."""
    model = _read(path)
    graph = model.subgraphs[0]
    layers = [_layer(model, graph, number, operator) for number, operator in enumerate(graph.operators)]
    macs = [_macs(graph, layer.kind, operator) for layer, operator in zip(layers, graph.operators, strict=True)]
    unknown = {layer.kind for layer, count in zip(layers, macs, strict=True) if count is None}
    stored = [tensor for tensor in graph.tensors if _data(model, tensor) is not None]
    return Inspection(
        path=path,
        kind="tflite",
        bytes=path.stat().st_size,
        sha256=file_sha256(path),
        parameters=sum(layer.parameters for layer in layers),
        tensors=largest_first([_tensor(tensor) for tensor in stored]),
        layers=tuple(replace(layer, macs=count or 0) for layer, count in zip(layers, macs, strict=True)),
        macs=None if unknown else sum(count or 0 for count in macs),
        inputs=tuple(_words(graph.tensors[index]) for index in graph.inputs),
        outputs=tuple(_words(graph.tensors[index]) for index in graph.outputs),
        metadata=sidecar_facts(path),
        notes=(
            *((f"{len(model.subgraphs)} subgraphs; the first is shown",) if len(model.subgraphs) > 1 else ()),
            *left_out(unknown),
        ),
    )


def _read(path: Path) -> Any:
    try:
        model = parsed(mapped(path))
    except Exception as error:
        # Offsets of a damaged flatbuffer lead anywhere, so its reader raises anything.
        raise CheckpointError(f"{path} is cut off or damaged ({first_line(error)}); export it again") from error
    if not model.subgraphs:
        raise CheckpointError(f"{path} holds no graph; export it again")
    return model


def _layer(model: Any, graph: Any, number: int, operator: Any) -> InspectedLayer:
    kind = operator_kinds(model)[operator.opcodeIndex]
    output = _shape(graph.tensors[operator.outputs[0]])
    weights = [graph.tensors[index] for index in operator.inputs[1:] if index >= 0]
    weights = [tensor for tensor in weights if _data(model, tensor) is not None and _is_weight(kind, tensor)]
    return InspectedLayer(f"{number}", kind, output[1:], sum(prod(_shape(tensor)) for tensor in weights))


def _is_weight(kind: str, tensor: Any) -> bool:
    # Integers of a reshape, pad or slice say where, not how much; a quantized bias is INT32.
    return kind in _WITH_BIAS or enum_names("TensorType")[tensor.type] not in ("INT32", "INT64", "BOOL")


_WITH_BIAS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def _macs(graph: Any, kind: str, operator: Any) -> int | None:
    """Return an operator's products for one image, None where they cannot be counted."""
    read = [_shape(graph.tensors[index]) if index >= 0 else () for index in operator.inputs]
    turned = bool(getattr(operator.builtinOptions, "adjX", False))
    count = tflite_macs(kind, read, _shape(graph.tensors[operator.outputs[0]]), turned=turned)
    images = next(iter(_shape(graph.tensors[graph.inputs[0]])), 1)
    return count if count is None else count // max(images, 1)


def _data(model: Any, tensor: Any) -> Any:
    data = model.buffers[tensor.buffer].data
    return data if data is not None and len(data) else None


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in tensor.shape) if tensor.shape is not None else ()


def _tensor(tensor: Any) -> StoredTensor:
    kind = enum_names("TensorType")[tensor.type]
    size = -(-prod(_shape(tensor)) * _BITS.get(kind, 32) // 8)
    return StoredTensor(_name(tensor), kind.lower(), _shape(tensor), size, *_scales(tensor))


def _scales(tensor: Any) -> tuple[int, int]:
    how = tensor.quantization
    counts = [
        0 if how is None or values is None else len(values) for values in (how and how.scale, how and how.zeroPoint)
    ]
    return counts[0], counts[1]


def _name(tensor: Any) -> str:
    return tensor.name.decode() if isinstance(tensor.name, bytes) else str(tensor.name)


def _words(tensor: Any) -> str:
    words = f"{_name(tensor)} {enum_names('TensorType')[tensor.type].lower()} [{', '.join(map(str, _shape(tensor)))}]"
    how = tensor.quantization
    if how is not None and how.scale is not None and len(how.scale):
        words += f" scale {how.scale[0]:.6g} zero point {how.zeroPoint[0]}"
    return words

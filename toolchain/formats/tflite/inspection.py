"""Inspect a .tflite file: its contents, and its multiply-accumulates from the shapes of tensors."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

from targets.errors import first_line
from toolchain.core.errors import CheckpointError
from toolchain.formats.inspection import InspectedLayer, Inspection, StoredTensor, uncounted_note
from toolchain.formats.tflite.file import enum_names, mapped, operator_kinds, parsed, shape_of

Shape = tuple[int, ...]

_LEFT_OUT = (
    "CUSTOM", "DELEGATE", "WHILE", "IF", "CALL", "CALL_ONCE", "RFFT2D", "LSTM", "SVDF", "RNN", "CONV_3D_TRANSPOSE",
    "UNIDIRECTIONAL_SEQUENCE_RNN", "BIDIRECTIONAL_SEQUENCE_RNN", "BIDIRECTIONAL_SEQUENCE_LSTM", "STABLEHLO_CONVOLUTION",
    "STABLEHLO_DOT_GENERAL", "STABLEHLO_COMPOSITE", "STABLEHLO_CUSTOM_CALL", "STABLEHLO_WHILE",
)  # fmt: skip
_WITH_BIAS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_BITS = {"INT4": 4} | dict.fromkeys(("INT8", "UINT8", "BOOL"), 8) | dict.fromkeys(("INT16", "UINT16", "FLOAT16"), 16)
_BITS |= {"INT64": 64, "FLOAT64": 64}


def _macs(kind: str, inputs: list[Shape], output: Shape, *, transposed: bool) -> int | None:
    """Return an operator's multiply-accumulates; None where it multiplies and cannot be counted.

    inputs: their shapes, empty for those that are left out. transposed: whether a matrix product reads its first input
    with the last two axes exchanged.
    """
    if kind in _LEFT_OUT:
        return None
    rule = _RULES.get(kind)
    if rule is None:
        return 0
    return prod(output) * inputs[0][-2] if transposed else rule(inputs, output)


def _lstm(inputs: list[Shape], _: Shape) -> int:
    # The weights of the gates, and of the projection.
    weights = [*inputs[1:9], *inputs[16:17]]
    return prod(inputs[0][:2]) * sum(prod(shape) for shape in weights if shape)


_RULES: dict[str, Callable[[list[Shape], Shape], int]] = {
    "CONV_2D": lambda inputs, output: prod(output) * prod(inputs[1][1:]),
    "CONV_3D": lambda inputs, output: prod(output) * prod(inputs[1][:-1]),
    "DEPTHWISE_CONV_2D": lambda inputs, output: prod(output) * prod(inputs[1][1:3]),
    "TRANSPOSE_CONV": lambda inputs, _: prod(inputs[2]) * prod(inputs[1][:3]),
    "FULLY_CONNECTED": lambda inputs, output: prod(output) * inputs[1][-1],
    "BATCH_MATMUL": lambda inputs, output: prod(output) * inputs[0][-1],
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _lstm,
}


def inspect_tflite(path: Path) -> Inspection:
    """Return the contents of a TFLite file, of its first subgraph only; raises CheckpointError when it is damaged."""
    model = _read(path)
    graph = model.subgraphs[0]
    kind_of_code = operator_kinds(model)
    kinds = [kind_of_code[operator.opcodeIndex] for operator in graph.operators]
    macs = [_macs_per_image(graph, kind, operator) for kind, operator in zip(kinds, graph.operators, strict=True)]
    unknown = {kind for kind, count in zip(kinds, macs, strict=True) if count is None}
    layers = [
        InspectedLayer(
            f"{number}",
            kind,
            shape_of(graph.tensors[operator.outputs[0]])[1:],
            _parameters(model, graph, kind, operator),
            count or 0,
        )
        for number, (kind, operator, count) in enumerate(zip(kinds, graph.operators, macs, strict=True))
    ]
    stored = [tensor for tensor in graph.tensors if _data(model, tensor) is not None]
    return Inspection.of(
        path,
        "tflite",
        [_tensor(tensor) for tensor in stored],
        parameters=sum(layer.parameters for layer in layers),
        layers=tuple(layers),
        macs=None if unknown else sum(layer.macs for layer in layers),
        inputs=tuple(_described(graph.tensors[index]) for index in graph.inputs),
        outputs=tuple(_described(graph.tensors[index]) for index in graph.outputs),
        notes=(
            *((f"{len(model.subgraphs)} subgraphs; the first is shown",) if len(model.subgraphs) > 1 else ()),
            *uncounted_note(unknown),
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


def _parameters(model: Any, graph: Any, kind: str, operator: Any) -> int:
    """Return the number of weights that an operator reads."""
    constants = [graph.tensors[index] for index in operator.inputs[1:] if index >= 0]
    return sum(
        prod(shape_of(tensor))
        for tensor in constants
        if _data(model, tensor) is not None
        # Integers of a reshape, pad or slice are no weights, but a quantized bias is INT32 too.
        and (kind in _WITH_BIAS or enum_names("TensorType")[tensor.type] not in ("INT32", "INT64", "BOOL"))
    )


def _macs_per_image(graph: Any, kind: str, operator: Any) -> int | None:
    """Return an operator's multiply-accumulates for one image, None where they cannot be counted."""
    inputs = [shape_of(graph.tensors[index]) if index >= 0 else () for index in operator.inputs]
    transposed = bool(getattr(operator.builtinOptions, "adjX", False))
    count = _macs(kind, inputs, shape_of(graph.tensors[operator.outputs[0]]), transposed=transposed)
    images = next(iter(shape_of(graph.tensors[graph.inputs[0]])), 1)
    return count if count is None else count // max(images, 1)


def _data(model: Any, tensor: Any) -> Any:
    data = model.buffers[tensor.buffer].data
    return data if data is not None and len(data) else None


def _tensor(tensor: Any) -> StoredTensor:
    kind = enum_names("TensorType")[tensor.type]
    size = -(-prod(shape_of(tensor)) * _BITS.get(kind, 32) // 8)
    return StoredTensor(_name(tensor), kind.lower(), shape_of(tensor), size, *_scales(tensor))


def _scales(tensor: Any) -> tuple[int, int]:
    """Return how many scales and zero points a tensor has."""
    quantization = tensor.quantization
    stored = (None, None) if quantization is None else (quantization.scale, quantization.zeroPoint)
    scales, zero_points = (0 if values is None else len(values) for values in stored)
    return scales, zero_points


def _name(tensor: Any) -> str:
    return tensor.name.decode() if isinstance(tensor.name, bytes) else str(tensor.name)


def _described(tensor: Any) -> str:
    """Return an input or output in one line."""
    line = f"{_name(tensor)} {enum_names('TensorType')[tensor.type].lower()} [{', '.join(map(str, shape_of(tensor)))}]"
    if _scales(tensor)[0]:
        line += f" scale {tensor.quantization.scale[0]:.6g} zero point {tensor.quantization.zeroPoint[0]}"
    return line

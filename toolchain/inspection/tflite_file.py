"""A .tflite file, taken apart."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

from targets.artifact import file_sha256
from targets.errors import first_line
from toolchain.errors import CheckpointError
from toolchain.inspection.facts import Inspection, Layer, StoredTensor, largest_first, left_out
from toolchain.inspection.sidecar import sidecar_facts
from toolchain.inspection.tflite_macs import tflite_macs
from toolchain.layers.tflite_graph import mapped, parsed

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


@cache
def _names(table: str) -> dict[int, str]:
    from ai_edge_litert import schema_py_generated as schema

    return {value: name for name, value in vars(getattr(schema, table)).items() if isinstance(value, int)}


def _layer(model: Any, graph: Any, number: int, operator: Any) -> Layer:
    code = model.operatorCodes[operator.opcodeIndex]
    kind = _names("BuiltinOperator").get(max(code.builtinCode, code.deprecatedBuiltinCode), "CUSTOM")
    output = _shape(graph.tensors[operator.outputs[0]])
    weights = [graph.tensors[index] for index in operator.inputs[1:] if index >= 0]
    weights = [tensor for tensor in weights if _data(model, tensor) is not None and _is_weight(kind, tensor)]
    return Layer(f"{number}", kind, output[1:], sum(prod(_shape(tensor)) for tensor in weights))


def _is_weight(kind: str, tensor: Any) -> bool:
    # Integers of a reshape, pad or slice say where, not how much; a quantized bias is INT32.
    return kind in _WITH_BIAS or _names("TensorType")[tensor.type] not in ("INT32", "INT64", "BOOL")


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
    kind = _names("TensorType")[tensor.type]
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
    words = f"{_name(tensor)} {_names('TensorType')[tensor.type].lower()} [{', '.join(map(str, _shape(tensor)))}]"
    how = tensor.quantization
    if how is not None and how.scale is not None and len(how.scale):
        words += f" scale {how.scale[0]:.6g} zero point {how.zeroPoint[0]}"
    return words

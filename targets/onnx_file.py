"""What an .onnx file says of itself, read from its protobuf."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from targets.artifact import TensorSpec
from targets.errors import ArtifactError
from targets.foreign import translated

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, ValueInfoProto

    Scales = dict[str, tuple[float, int]]

_TENSORS = (7, 5)
"""Where weights stand in an .onnx file: ModelProto.graph, GraphProto.initializer."""
_NUMBERS = frozenset({4, 5, 6, 7, 9, 10, 11})
"""Fields of a TensorProto that hold its numbers: float_data, int32_data and so on, and raw_data."""
_LARGE = 4096
"""Bytes of numbers from which on they are weights, and not scales, shapes or axes."""
_VARINT, _LENGTH = 0, 2
_SIZES = {1: 8, 5: 4}
"""How a field is stored: a number of its own length, bytes behind their length, or a number of 8 or 4 bytes."""


def described(path: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return the inputs and outputs that it declares, integers by the Q/DQ nodes beside them; raises ArtifactError."""
    graph = _model(path).graph
    with translated(lambda reason: ArtifactError(f"{path}: a damaged ONNX model ({reason}); export it again")):
        constants = {tensor.name for tensor in graph.initializer}
        told = scales(graph)
        inputs = tuple(_spec(value, told) for value in graph.input if value.name not in constants)
        return inputs, tuple(_spec(value, told) for value in graph.output)


def metadata(path: Path) -> dict[str, str]:
    """Return its metadata_props; raises ArtifactError."""
    return {entry.key: entry.value for entry in _model(path).metadata_props}


def scales(graph: GraphProto) -> Scales:
    """Return scale and zero point of what a QuantizeLinear gives or a DequantizeLinear takes, one a tensor."""
    from onnx.numpy_helper import to_array

    stored = {tensor.name: tensor for tensor in graph.initializer}
    makers = [node for node in graph.node if node.op_type == "Constant"]
    stored |= {node.output[0]: one.t for node in makers for one in node.attribute if one.name == "value"}
    found = {}
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.input[1] in stored:
            tensor = node.input[0] if node.op_type == "DequantizeLinear" else node.output[0]
            scale = stored[node.input[1]]
            zero = stored.get(node.input[2]) if len(node.input) > 2 else None
            if prod(scale.dims) == 1:
                found[tensor] = (float(to_array(scale).item()), 0 if zero is None else int(to_array(zero).item()))
    return found


def without_weights(path: Path) -> ModelProto:
    """Return the model of an .onnx file, whose large tensors have their name, type and shape but no numbers.

    onnx.load takes twice the file in memory. Raises DecodeError, as protobuf does.
    """
    from onnx import ModelProto

    with path.open("rb") as stream:
        model: ModelProto = ModelProto.FromString(_without_numbers(stream, path.stat().st_size, _TENSORS))
    return model


def append(path: Path, more: ModelProto) -> None:
    """Add what `more` lists to an .onnx file without reading it: protobuf joins messages that stand one behind another.

    See https://protobuf.dev/programming-guides/encoding/#last-one-wins.
    """
    with path.open("ab") as stream:
        stream.write(more.SerializeToString())


def _without_numbers(stream: BinaryIO, end: int, inner: tuple[int, ...]) -> bytes:
    """Return the protobuf message up to `end`; inner: fields that lead to tensors, none where it is one.

    Format: https://protobuf.dev/programming-guides/encoding.
    """
    kept = []
    while stream.tell() < end:
        key = _read_varint(stream)
        field, kind = key >> 3, key & 7
        if kind == _VARINT:
            kept.append(varint(key) + varint(_read_varint(stream)))
            continue
        length = _read_varint(stream) if kind == _LENGTH else _SIZES.get(kind, end)
        after = stream.tell() + length
        if after > end:
            raise _truncated()
        if not inner and field in _NUMBERS and length >= _LARGE:
            stream.seek(after)
            continue
        deeper = inner[:1] == (field,) and kind == _LENGTH
        content = _without_numbers(stream, after, inner[1:]) if deeper else stream.read(length)
        kept.append(varint(key) + (varint(len(content)) if kind == _LENGTH else b"") + content)
    return b"".join(kept)


def _read_varint(stream: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = stream.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise _truncated()


def varint(value: int) -> bytes:
    """Return a number as protobuf writes it: seven bits a byte, the lowest first."""
    made = bytearray()
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*made, value))


def _truncated() -> Exception:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # it ships no stubs

    error: Exception = DecodeError("truncated message")
    return error


def _model(path: Path) -> ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = without_weights(path)
    except DecodeError as error:
        raise ArtifactError(f"{path}: no ONNX model, or a truncated one ({error}); export it again") from error
    if has_broken_text(model):
        raise ArtifactError(f"{path}: a name in it is no UTF-8 text; export it again")
    if not (model.graph.input and model.graph.output):
        raise ArtifactError(f"{path}: an ONNX file without inputs or outputs; export it again")
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise ArtifactError(
            f"{path}: keeps weights in other files; save it as one (onnx.save, save_as_external_data=0)"
        )
    return model


def has_broken_text(message: Any) -> bool:
    """Say whether a name in an ONNX model is no UTF-8 text: protobuf hands such a one out as bytes."""
    # Not ListFields, which would copy the weights.
    for field in message.DESCRIPTOR.fields:
        if field.type not in (field.TYPE_STRING, field.TYPE_MESSAGE):
            continue
        if not field.is_repeated and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        values = value if field.is_repeated else (value,)
        if any(isinstance(one, bytes) if field.type == field.TYPE_STRING else has_broken_text(one) for one in values):
            return True
    return False


def _spec(value: ValueInfoProto, told: Scales) -> TensorSpec:
    from onnx.helper import tensor_dtype_to_np_dtype

    tensor = value.type.tensor_type
    shape = tuple(axis.dim_value if axis.HasField("dim_value") else -1 for axis in tensor.shape.dim)
    dtype = tensor_dtype_to_np_dtype(tensor.elem_type)
    return TensorSpec(value.name, shape, dtype.name, *(told.get(value.name, ()) if dtype.kind in "iu" else ()))

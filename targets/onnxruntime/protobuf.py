"""The protobuf messages of an .onnx file: read without its weights, and appended to without reading it.

Format: https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from onnx import ModelProto

_TENSORS = (7, 5)
"""Path of field numbers to the weights: ModelProto.graph, GraphProto.initializer."""
_NUMBERS = frozenset({4, 5, 6, 7, 9, 10, 11})
"""Fields of a TensorProto with its values: float_data, int32_data and so on, and raw_data."""
_LARGE = 4096
"""Values of at least this many bytes are weights; smaller ones are scales, shapes or axes."""
_VARINT, _LENGTH = 0, 2
_SIZES = {1: 8, 5: 4}
"""Wire types of a field: a varint, bytes after their length, and numbers of 8 or 4 bytes."""


def without_weights(path: Path) -> ModelProto:
    """Return the model of an .onnx file, whose large tensors have name, type and shape but no values.

    onnx.load takes twice the file's size in memory. Raises DecodeError, as protobuf does.
    """
    from onnx import ModelProto

    with path.open("rb") as stream:
        model: ModelProto = ModelProto.FromString(_without_numbers(stream, path.stat().st_size, _TENSORS))
    return model


def append(path: Path, more: ModelProto) -> None:
    """Append the fields of `more` to an .onnx file without reading it: protobuf merges concatenated messages.

    See https://protobuf.dev/programming-guides/encoding/#last-one-wins.
    """
    with path.open("ab") as stream:
        stream.write(more.SerializeToString())


def has_broken_text(message: Any) -> bool:
    """Return whether a name in an ONNX model is not UTF-8; protobuf returns such a name as bytes."""
    # Not ListFields, which would copy the weights.
    for field in message.DESCRIPTOR.fields:
        if field.type not in (field.TYPE_STRING, field.TYPE_MESSAGE):
            continue
        if not field.is_repeated and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        values = value if field.is_repeated else (value,)
        if any(isinstance(v, bytes) if field.type == field.TYPE_STRING else has_broken_text(v) for v in values):
            return True
    return False


def _without_numbers(stream: BinaryIO, end: int, inner: tuple[int, ...]) -> bytes:
    """Return the protobuf message up to `end` without weights. inner: path of fields to tensors, empty inside one."""
    parts = []
    while stream.tell() < end:
        key = _read_varint(stream)
        field, kind = key >> 3, key & 7
        if kind == _VARINT:
            parts.append(varint(key) + varint(_read_varint(stream)))
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
        parts.append(varint(key) + (varint(len(content)) if kind == _LENGTH else b"") + content)
    return b"".join(parts)


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
    """Return a number as protobuf writes it: seven bits per byte, the lowest first."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*encoded, value))


def _truncated() -> Exception:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # it ships no stubs

    error: Exception = DecodeError("truncated message")
    return error

"""The protobuf messages of an .onnx file, read without its weights and added to without reading it.

Format: https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from onnx import ModelProto

_TENSORS = (7, 5)
"""Where weights stand in an .onnx file: ModelProto.graph, GraphProto.initializer."""
_NUMBERS = frozenset({4, 5, 6, 7, 9, 10, 11})
"""Fields of a TensorProto that hold its numbers: float_data, int32_data and so on, and raw_data."""
_LARGE = 4096
"""Bytes of numbers from which on they are weights, and not scales, shapes or axes."""
_VARINT, _LENGTH = 0, 2
_SIZES = {1: 8, 5: 4}
"""How a field is stored: a number of its own length, bytes behind their length, or a number of 8 or 4 bytes."""


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


def _without_numbers(stream: BinaryIO, end: int, inner: tuple[int, ...]) -> bytes:
    """Return the protobuf message up to `end`; inner: fields that lead to tensors, none where it is one."""
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

"""Write an ONNX model one tensor at a time; protobuf's own writer would hold the weights twice more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from targets.onnxruntime.protobuf import varint

if TYPE_CHECKING:
    from onnx import ModelProto

_WEIGHTS = ("graph", "initializer", "raw_data")
"""The fields that lead to the numbers of a weight."""
_BYTES = 2
"""The type of a field that is stored as its length and so many bytes."""


def write_model(model: ModelProto, path: Path) -> None:
    """Write the bytes of `model.SerializeToString(deterministic=True)`.

    Format: https://protobuf.dev/programming-guides/encoding; the fields of a message stand by their numbers.
    """
    with path.open("wb") as stream:
        stream.writelines(_pieces(model, _WEIGHTS))


def _pieces(message: Any, fields: tuple[str, ...]) -> Iterator[bytes]:
    """Yield a message in pieces, the parts of its field `fields[0]` one by one; without fields it is bytes already."""
    if not fields:
        yield message
        return
    field = message.DESCRIPTOR.fields_by_name[fields[0]]
    if not field.is_repeated and not message.HasField(field.name):
        yield message.SerializeToString(deterministic=True)
        return
    yield _only(message, lambda number: number < field.number)
    value = getattr(message, field.name)
    for part in value if field.is_repeated else (value,):
        yield varint(field.number << 3 | _BYTES) + varint(sum(map(len, _pieces(part, fields[1:]))))
        yield from _pieces(part, fields[1:])
    yield _only(message, lambda number: number > field.number)


def _only(message: Any, is_chosen: Callable[[int], bool]) -> bytes:
    """Return the bytes of a message with only those fields whose number is chosen."""
    copy = type(message)()
    for field in message.DESCRIPTOR.fields:
        if not is_chosen(field.number):
            continue
        if field.is_repeated:
            getattr(copy, field.name).extend(getattr(message, field.name))
        elif message.HasField(field.name):
            value = getattr(message, field.name)
            if field.type == field.TYPE_MESSAGE:
                getattr(copy, field.name).CopyFrom(value)
            else:
                setattr(copy, field.name, value)
    content: bytes = copy.SerializeToString(deterministic=True)
    return content

"""Write an ONNX model a tensor at a time: protobuf's own way holds the weights twice more meanwhile."""

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


def _pieces(message: Any, way: tuple[str, ...]) -> Iterator[bytes]:
    """Yield a message in pieces, those of the field that `way` begins with apart; without a way it is bytes already."""
    if not way:
        yield message
        return
    field = message.DESCRIPTOR.fields_by_name[way[0]]
    if not field.is_repeated and not message.HasField(field.name):
        yield message.SerializeToString(deterministic=True)
        return
    yield _only(message, lambda number: number < field.number)
    value = getattr(message, field.name)
    for one in value if field.is_repeated else (value,):
        yield varint(field.number << 3 | _BYTES) + varint(sum(map(len, _pieces(one, way[1:]))))
        yield from _pieces(one, way[1:])
    yield _only(message, lambda number: number > field.number)


def _only(message: Any, chosen: Callable[[int], bool]) -> bytes:
    """Return a message without the fields that are not chosen by their numbers."""
    copy = type(message)()
    for field in message.DESCRIPTOR.fields:
        if not chosen(field.number):
            continue
        if field.is_repeated:
            getattr(copy, field.name).extend(getattr(message, field.name))
        elif message.HasField(field.name):
            value = getattr(message, field.name)
            if field.type == field.TYPE_MESSAGE:
                getattr(copy, field.name).CopyFrom(value)
            else:
                setattr(copy, field.name, value)
    made: bytes = copy.SerializeToString(deterministic=True)
    return made

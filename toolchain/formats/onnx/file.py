"""Read an ONNX file, its weights and the files in which they lie; write one a tensor at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from targets.errors import first_line
from targets.onnxruntime.onnx_file import refuse_huge
from targets.onnxruntime.protobuf import has_broken_text, varint, without_weights
from toolchain.core.errors import CheckpointError

if TYPE_CHECKING:
    from onnx import ModelProto


_SLACK = 1 << 16
"""Bytes by which weights in a file of their own may be padded."""


def read_onnx(path: Path, *, weights: bool = True) -> ModelProto:
    """Return the model of an ONNX file and its weights, or the graph alone.

    Raises CheckpointError when either is missing, ArtifactError when its weights are read and its operators ask for
    more memory than any reader of characters.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # ships no types

    try:
        if weights:
            refuse_huge(path)
        proto = onnx.load(path, load_external_data=False) if weights else without_weights(path)
        _refuse_false_weights(proto, path)
        if weights:
            onnx.load_external_data_for_model(proto, str(path.parent))
    except DecodeError as error:
        raise CheckpointError(f"{path} is no ONNX file, or is cut off; export it again") from error
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise CheckpointError(
            f"{path}: its weights lie in another file that cannot be read ({first_line(error)}); copy both"
        ) from error
    if has_broken_text(proto):
        raise CheckpointError(f"{path}: a name in it is no UTF-8 text; export it again")
    if not proto.graph.node or not proto.graph.output:
        raise CheckpointError(f"{path} is no ONNX file (no graph in it); export it again")
    return proto


def _refuse_false_weights(proto: ModelProto, path: Path) -> None:
    """Raise CheckpointError where weights lie in no file of the model's folder, or in one of another size than theirs.

    onnx reads such a file whole where no length is given, whatever the size of the weights.
    """
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    for tensor in filter(uses_external_data, proto.graph.initializer):
        info = ExternalDataInfo(tensor)
        beside = path.parent / info.location
        if not beside.resolve().is_relative_to(path.parent.resolve()) or not beside.is_file():
            raise CheckpointError(
                f"{path}: its weights lie in another file that is not beside it ({info.location}); copy both"
            )
        wanted = prod(tensor.dims) * _element_bytes(tensor.data_type)
        reads = info.length or beside.stat().st_size - (info.offset or 0)
        if reads > max(wanted, _SLACK):
            raise CheckpointError(
                f"{path}: {tensor.name} takes {wanted:,} bytes, but is said to have {reads:,} of {info.location}; "
                f"export it again"
            )


def _element_bytes(data_type: int) -> int:
    """Return the bytes of an element, a whole one where several share it."""
    from onnx import helper

    return int(helper.tensor_dtype_to_np_dtype(data_type).itemsize)


def image_inputs(proto: ModelProto) -> list[Any]:
    """Return the graph's inputs that are not initializers (before IR version 4 those are listed as inputs too)."""
    initial = {initializer.name for initializer in proto.graph.initializer}
    return [value for value in proto.graph.input if value.name not in initial]


def weight_files(path: Path) -> tuple[Path, ...]:
    """Return the files beside an ONNX file that hold its weights (external data), sorted; none for most models."""
    from onnx.external_data_helper import uses_external_data

    proto = without_weights(path)
    names = {
        entry.value
        for tensor in proto.graph.initializer
        if uses_external_data(tensor)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return tuple(path.parent / name for name in sorted(names))


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

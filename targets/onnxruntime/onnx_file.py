"""Reads what an .onnx file declares (inputs, outputs, metadata, memory), and appends to it, without its weights.

Format: https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from targets.artifact import MOST_BYTES, TensorSpec
from targets.errors import ArtifactError, translated

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, ValueInfoProto

    Scales = dict[str, tuple[float, int]]


def described(path: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return its inputs and outputs, with the scales of integer ones from their Q/DQ nodes; raises ArtifactError."""
    graph = _model(path).graph
    refuse_huge(path)
    with translated(lambda reason: ArtifactError(f"{path}: a damaged ONNX model ({reason}); export it again")):
        constants = {tensor.name for tensor in graph.initializer}
        known_scales = scales(graph)
        inputs = tuple(_spec(value, known_scales) for value in graph.input if value.name not in constants)
        return inputs, tuple(_spec(value, known_scales) for value in graph.output)


def metadata(path: Path) -> dict[str, str]:
    """Return its metadata_props; raises ArtifactError."""
    return {entry.key: entry.value for entry in _model(path).metadata_props}


def scales(graph: GraphProto) -> Scales:
    """Return scale and zero point by name of tensors that a QuantizeLinear writes or a DequantizeLinear reads."""
    from onnx.numpy_helper import to_array

    constants = {tensor.name: tensor for tensor in graph.initializer}
    makers = [node for node in graph.node if node.op_type == "Constant"]
    constants |= {node.output[0]: each.t for node in makers for each in node.attribute if each.name == "value"}
    by_tensor = {}
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.input[1] in constants:
            tensor = node.input[0] if node.op_type == "DequantizeLinear" else node.output[0]
            scale = constants[node.input[1]]
            zero = constants.get(node.input[2]) if len(node.input) > 2 else None
            if prod(scale.dims) == 1:
                by_tensor[tensor] = (float(to_array(scale).item()), 0 if zero is None else int(to_array(zero).item()))
    return by_tensor


def refuse_outside_weights(path: Path) -> None:
    """Raise ArtifactError for a file whose weights are in other files (external data): an artifact is one file.

    Its size, its digest and what is sent to a device are those of the file alone. Raises nothing where the file cannot
    be parsed.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # it ships no stubs

    try:
        model = without_weights(path)
    except DecodeError:
        return  # the next reader of the file gives a better message
    _refuse_outside_weights(path, model)


def _refuse_outside_weights(path: Path, model: ModelProto) -> None:
    beside = next(_outside(model), None)
    if beside is not None:
        raise ArtifactError(
            f"{path}: its weights are in another file ({beside!r:.80}), and only one file can be judged and shipped; "
            "save it as one, `onnx.save(onnx.load(FILE), ONE_FILE)` in Python, and describe it with `glyphpress adopt`"
        )


def _outside(message: Any) -> Iterator[str]:
    """Yield the files that tensors anywhere in a model are in: initializers and constants, of subgraphs too."""
    for field, value in message.ListFields():
        if field.type != field.TYPE_MESSAGE:
            continue
        for part in value if field.is_repeated else (value,):
            if field.message_type.name != "TensorProto":
                yield from _outside(part)
            elif part.data_location == part.EXTERNAL:
                yield next((entry.value for entry in part.external_data if entry.key == "location"), "")


def _model(path: Path) -> ModelProto:
    from google.protobuf.message import DecodeError

    try:
        model = without_weights(path)
    except DecodeError as error:
        raise ArtifactError(f"{path}: not an ONNX model, or a truncated one ({error}); export it again") from error
    if has_broken_text(model):
        raise ArtifactError(f"{path}: a name in it is not UTF-8; export it again")
    if not (model.graph.input and model.graph.output):
        raise ArtifactError(f"{path}: an ONNX file without inputs or outputs; export it again")
    _refuse_outside_weights(path, model)
    return model


def _spec(value: ValueInfoProto, known_scales: Scales) -> TensorSpec:
    from onnx.helper import tensor_dtype_to_np_dtype

    tensor = value.type.tensor_type
    shape = tuple(axis.dim_value if axis.HasField("dim_value") else -1 for axis in tensor.shape.dim)
    dtype = tensor_dtype_to_np_dtype(tensor.elem_type)
    return TensorSpec(value.name, shape, dtype.name, *(known_scales.get(value.name, ()) if dtype.kind in "iu" else ()))


def refuse_huge(path: Path) -> None:
    """Raise ArtifactError for a file whose operators together write more than MOST_BYTES for one image.

    Sizes that cannot be inferred from the file are left out.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        inferred = onnx.shape_inference.infer_shapes(_of_one_image(without_weights(path)), data_prop=True)
    except (DecodeError, OSError, RuntimeError, ValueError, onnx.shape_inference.InferenceError):
        return  # the next reader of the file gives a better message
    sizes = [(_bytes(value), node) for graph in _graphs(inferred.graph) for value, node in _written_values(graph)]
    total = sum(size for size, _ in sizes)
    if total > MOST_BYTES:
        size, (kind, name) = max(sizes)
        raise ArtifactError(
            f"{path}: its operators ask for {total:,} bytes, over the limit of {MOST_BYTES:,} "
            f"({size:,} are those of {kind} {name!r:.60}); export the model again"
        )


def _of_one_image(proto: ModelProto) -> ModelProto:
    """Return the model (changed in place) with dynamic input axes set to 1, without declared types of other values."""
    graph = proto.graph
    del graph.value_info[:]
    for value in graph.output:
        value.ClearField("type")
    for value in graph.input:
        for axis in value.type.tensor_type.shape.dim:
            axis.dim_value = axis.dim_value or 1
    return proto


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                yield from _graphs(body)


def _written_values(graph: GraphProto) -> Iterator[tuple[ValueInfoProto, tuple[str, str]]]:
    """Yield the values that the operators of a graph write, each with the operator's kind and name."""
    writers = {name: (node.op_type, node.name) for node in graph.node for name in node.output}
    # Outputs without a type are in value_info too.
    values = {value.name: value for value in (*graph.output, *graph.value_info)}
    yield from ((value, writers[name]) for name, value in values.items() if name in writers)


def _bytes(value: ValueInfoProto) -> int:
    from onnx.helper import tensor_dtype_to_np_dtype

    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return 0
    try:
        width = int(tensor_dtype_to_np_dtype(tensor.elem_type).itemsize)
    except (KeyError, TypeError):
        width = 1
    return width * prod(int(axis.dim_value) for axis in tensor.shape.dim)


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
    from google.protobuf.message import DecodeError

    error: Exception = DecodeError("truncated message")
    return error

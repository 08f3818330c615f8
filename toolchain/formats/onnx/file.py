"""Read an ONNX file and the files that hold its weights, remove what no runtime reads, and write it."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator
from itertools import count
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from targets.errors import first_line
from targets.onnxruntime.onnx_file import has_broken_text, refuse_huge, varint, without_weights
from toolchain.core.errors import CheckpointError
from toolchain.formats.onnx.edit import Edit, constant, describe_as, rename, run, subgraphs, to_proto

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnx import AttributeProto, ModelProto
    from onnx_ir.passes import PassBase

_SLACK = 1 << 16
"""Bytes by which weights in a file of their own may be padded."""
_WEIGHT_FIELDS = ("graph", "initializer", "raw_data")
"""The fields that lead to the values of a weight."""
_LENGTH = 2
"""The wire type of a field that is stored as its length and so many bytes."""
_WEIGHT_NAME = re.compile(r"(.+\.weight)(?:_quantized|_int8)?(?:_int4)?")
"""A layer's weight as torch names it, and the suffixes of quantizers."""
_IMPLIED = {"strides": 1, "dilations": 1, "pads": 0}
"""Defaults of convolutions and pools that the text of the ONNX specification has, but not the schema."""
_LARGE = 4 << 20
"""Bytes of weights from which garbage is collected at once; that takes 0.3 s in a process with torch."""


def read_onnx(path: Path, *, weights: bool = True) -> ModelProto:
    """Return the model of an ONNX file with its weights, or the graph alone.

    Raises CheckpointError when it is not an ONNX file or its weights are missing, and ArtifactError when it is read
    with weights and its operators need more memory than any model of 28x28 images.
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
        raise CheckpointError(f"{path} is not an ONNX file, or is cut off; export it again") from error
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise CheckpointError(
            f"{path}: its weights are in another file that cannot be read ({first_line(error)}); copy both"
        ) from error
    if has_broken_text(proto):
        raise CheckpointError(f"{path}: a name in it is not UTF-8 text; export it again")
    if not proto.graph.node or not proto.graph.output:
        raise CheckpointError(f"{path} is not an ONNX file (it has no graph); export it again")
    return proto


def _refuse_false_weights(proto: ModelProto, path: Path) -> None:
    """Raise CheckpointError where weights are outside the model's folder, or in a file that is cut off or too large.

    Where no length is given, onnx reads such a file whole, whatever the size of the weights.
    """
    from onnx import helper
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    for tensor in filter(uses_external_data, proto.graph.initializer):
        info = ExternalDataInfo(tensor)
        beside = path.parent / info.location
        if not beside.resolve().is_relative_to(path.parent.resolve()) or not beside.is_file():
            raise CheckpointError(
                f"{path}: its weights are in another file that is not beside it ({info.location}); copy both"
            )
        held = beside.stat().st_size
        if held < (info.offset or 0) + (info.length or 0):
            raise CheckpointError(
                f"{path}: {info.location}, which holds its weights, is cut off or only a pointer of Git LFS "
                f"({held:,} bytes); copy it again"
            )
        # A whole byte for each element, also where several share one.
        size = prod(tensor.dims) * int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
        reads = info.length or held - (info.offset or 0)
        if reads > max(size, _SLACK):
            raise CheckpointError(
                f"{path}: {tensor.name} has {size:,} bytes, but the file assigns it {reads:,} of {info.location}; "
                "export it again"
            )


def image_inputs(proto: ModelProto) -> list[Any]:
    """Return the graph's inputs that are not initializers (before IR version 4 those are listed as inputs too)."""
    initial = {initializer.name for initializer in proto.graph.initializer}
    return [value for value in proto.graph.input if value.name not in initial]


def weight_files(path: Path) -> tuple[Path, ...]:
    """Return the files beside an ONNX file that hold its weights (external data), sorted; none for most models."""
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    stored_outside = filter(uses_external_data, without_weights(path).graph.initializer)
    names = {ExternalDataInfo(tensor).location for tensor in stored_outside} - {""}
    return tuple(path.parent / name for name in sorted(names))


def read(path: Path) -> ir.Model:
    """Return the model of an .onnx file with its weights."""
    import onnx
    import onnx_ir as ir

    return ir.from_proto(onnx.load(path))


def rewrite(path: Path, *edits: Edit | PassBase) -> None:
    """Run edits on a file that glyphpress has made, such as an intermediate file, and write it again."""
    write_model(to_proto(run(read(path), *edits)), path)


def write_model(model: ModelProto, path: Path) -> None:
    """Write the bytes of `model.SerializeToString(deterministic=True)`.

    The weights are written one by one, so that they are not in memory twice. Format:
    https://protobuf.dev/programming-guides/encoding; the fields of a message are in the order of their numbers.
    """
    with path.open("wb") as stream:
        stream.writelines(_pieces(model, _WEIGHT_FIELDS))


def _pieces(message: Any, fields: tuple[str, ...]) -> Iterator[bytes]:
    """Yield a message in pieces, the parts of its field `fields[0]` one by one; without fields it is already bytes."""
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
        yield varint(field.number << 3 | _LENGTH) + varint(sum(map(len, _pieces(part, fields[1:]))))
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


def slim_onnx(model: ModelProto | ir.Model) -> ModelProto:
    """Return the model without what no runtime reads; its answers keep every bit. The given model is changed.

    That saves a quarter of a file of 16 KiB. Removed are dead nodes, functions, domains and initializers, source lines,
    module paths, inferred shapes, attributes equal to their default, zero points that are all zero (the default of
    DequantizeLinear), and pairs of Dequantize and Quantize around a Reshape. Equal initializers are stored once. Names
    become short, except those of inputs, outputs and weights, which keep their layer's name (`features.conv1.weight`),
    in quantized files too.
    """
    import onnx_ir as ir
    from onnx_ir.passes import common

    slim = run(
        model if isinstance(model, ir.Model) else ir.from_proto(model),
        drop_zero_points,
        drop_requantized_reshapes,
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]  # it is not annotated
        common.RemoveUnusedOpsetsPass(),
        common.DeduplicateInitializersPass(),
        common.ClearMetadataAndDocStringPass(),
        drop_defaults,
        shorten_names,
    )
    slim.graph.doc_string = None
    slim.graph.metadata_props.clear()
    slim.metadata_props.clear()
    proto: ModelProto = ir.to_proto(slim)
    del proto.graph.value_info[:]
    for node in () if _has_subgraphs(slim) else proto.graph.node:
        node.name = ""  # present but empty: files have always had it, and their bytes must stay the same
    # The parts of an ir.Model refer to each other, so it keeps all weights until garbage is collected.
    weight_bytes = sum(
        value.const_value.nbytes for value in slim.graph.initializers.values() if value.const_value is not None
    )
    del model, slim
    if weight_bytes >= _LARGE:
        gc.collect()
    return proto


def drop_zero_points(model: ir.Model) -> bool:
    """Drop zero points that are all zero: of biases, and of weights in front of Conv alone.

    onnxruntime fuses Gemm and MatMul only with their zero points. Those of activations stay, since QuantizeLinear takes
    uint8 where the zero point is missing.
    """
    import onnx_ir as ir

    changed = False
    for node in model.graph:
        point = node.inputs[2] if node.op_type == "DequantizeLinear" and len(node.inputs) == 3 else None
        if point is None or not point.is_initializer() or point.dtype not in (ir.DataType.INT8, ir.DataType.INT32):
            continue
        of_bias = point.dtype == ir.DataType.INT32
        if (of_bias or all(reader.op_type == "Conv" for reader in node.outputs[0].consumers())) and _all_zero(point):
            node.resize_inputs(2)
            changed = True
    return changed


def _all_zero(value: ir.Value) -> bool:
    numbers = constant(value)
    return numbers is not None and not numbers.any()


def drop_requantized_reshapes(model: ir.Model) -> bool:
    """Of Dequantize, Reshape and Quantize with the same scale keep only the Reshape, which moves integers as well."""
    changed = False
    for quantize in [node for node in model.graph if node.op_type == "QuantizeLinear"]:
        reshape = _sole_producer(quantize, "Reshape")
        dequantize = None if reshape is None else _sole_producer(reshape, "DequantizeLinear")
        if reshape is None or dequantize is None or quantize.inputs[1:] != dequantize.inputs[1:]:
            continue
        integers, reshaped = quantize.outputs[0], reshape.outputs[0]
        integers.replace_all_uses_with(reshaped, replace_graph_outputs=True)
        describe_as(reshaped, integers)
        reshape.replace_input_with(0, dequantize.inputs[0])
        model.graph.remove([quantize, dequantize], safe=True)
        changed = True
    return changed


def _sole_producer(node: ir.Node, kind: str) -> ir.Node | None:
    """Return the operator that makes a node's first input, if it is of `kind` and nothing else reads that value."""
    value = node.inputs[0]
    producer = None if value is None else value.producer()
    if value is None or producer is None or producer.op_type != kind:
        return None
    return producer if len(value.uses()) == 1 and not value.is_graph_output() else None


def drop_defaults(model: ir.Model) -> bool:
    """Drop attributes that are equal to their default."""
    import onnx

    changed = False
    for node in model.graph:
        try:
            schema = onnx.defs.get_schema(node.op_type, model.opset_imports[node.domain], node.domain)
        except onnx.defs.SchemaError:
            continue  # an operator of another domain
        windowed = "kernel_shape" in schema.attributes
        for attribute in list(node.attributes.values()):
            implied = windowed and attribute.name in _IMPLIED and set(attribute.value) <= {_IMPLIED[attribute.name]}
            if implied or _is_default(attribute, schema.attributes[attribute.name].default_value):
                del node.attributes[attribute.name]
                changed = True
    return changed


def _is_default(attribute: ir.Attr, default: AttributeProto) -> bool:
    from onnx.helper import get_attribute_value

    if default.type != attribute.type.value:
        return False
    value = get_attribute_value(default)
    if isinstance(value, bytes):
        value = value.decode()
    return bool(attribute.value == (tuple(value) if isinstance(attribute.value, tuple) else value))


def shorten_names(model: ir.Model) -> bool:
    """Name all values but inputs, outputs and weights `t0`, `t1` and so on, and remove the names of operators."""
    graph = model.graph
    if _has_subgraphs(model):
        return False  # a subgraph may refer to outer names
    names = {value: value.name or "" for value in (*graph.inputs, *graph.outputs)}
    weights = list(graph.initializers.values())
    for value in weights:
        if value not in names and (name := _weight_name(value)):
            names[value] = name if name not in names.values() else value.name or ""
    used = set(names.values())
    free = (f"t{number}" for number in count() if f"t{number}" not in used)
    for value in (*weights, *(output for node in graph for output in node.outputs if output.name)):
        if value not in names:
            names[value] = next(free)
    rename(graph, names)
    for node in graph:
        node.name = ""
    return True


def _has_subgraphs(model: ir.Model) -> bool:
    return any(True for node in model.graph for _ in subgraphs(node))


def _weight_name(value: ir.Value) -> str:
    """Return the short name of a weight, empty for any other initializer; in a user's file it may have any name."""
    name = value.name or ""
    if named := _WEIGHT_NAME.fullmatch(name):
        return named[1]
    shape = value.const_value.shape.numpy() if value.const_value is not None else ()
    return name if sum(size > 1 for size in shape) > 1 else ""

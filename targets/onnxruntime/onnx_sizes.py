"""How many bytes the operators of an .onnx file ask for, before a runtime opens it."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from targets.errors import ArtifactError
from targets.litert.cpu import MOST
from targets.onnxruntime.protobuf import without_weights

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, ValueInfoProto


def refuse_huge(path: Path) -> None:
    """Raise ArtifactError on a file whose operators together make more than MOST bytes of one image.

    Sizes that follow from no constant of the file count nothing.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # it ships no stubs

    try:
        inferred = onnx.shape_inference.infer_shapes(_of_one_image(without_weights(path)), data_prop=True)
    except (DecodeError, OSError, RuntimeError, ValueError, onnx.shape_inference.InferenceError):
        return  # what reads the file next says it better
    sizes = [(_bytes(value), node) for graph in _graphs(inferred.graph) for value, node in _made(graph)]
    total = sum(size for size, _ in sizes)
    if total > MOST:
        size, (kind, name) = max(sizes)
        raise ArtifactError(
            f"{path}: its operators ask for {total:,} bytes, over the limit of {MOST:,} ({size:,} are those of {kind} "
            f"{name!r:.60}); export the model again"
        )


def _of_one_image(proto: ModelProto) -> ModelProto:
    """Return the model with open axes of its inputs as 1, without the types that it declares of other values."""
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


def _made(graph: GraphProto) -> Iterator[tuple[ValueInfoProto, tuple[str, str]]]:
    """Yield what the operators of a graph make, with each one's kind and name."""
    made_by = {name: (node.op_type, node.name) for node in graph.node for name in node.output}
    # Outputs without a type are listed as other values too.
    values = {value.name: value for value in (*graph.output, *graph.value_info)}
    yield from ((value, made_by[name]) for name, value in values.items() if name in made_by)


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

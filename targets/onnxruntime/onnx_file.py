"""What an .onnx file says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from targets.artifact import TensorSpec
from targets.errors import ArtifactError, translated
from targets.litert.cpu import MOST
from targets.onnxruntime.protobuf import has_broken_text, without_weights

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, ValueInfoProto

    Scales = dict[str, tuple[float, int]]


def described(path: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return the inputs and outputs that it declares, integers by the Q/DQ nodes beside them; raises ArtifactError."""
    graph = _model(path).graph
    refuse_huge(path)
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


def _model(path: Path) -> ModelProto:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # it ships no stubs

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


def _spec(value: ValueInfoProto, told: Scales) -> TensorSpec:
    from onnx.helper import tensor_dtype_to_np_dtype

    tensor = value.type.tensor_type
    shape = tuple(axis.dim_value if axis.HasField("dim_value") else -1 for axis in tensor.shape.dim)
    dtype = tensor_dtype_to_np_dtype(tensor.elem_type)
    return TensorSpec(value.name, shape, dtype.name, *(told.get(value.name, ()) if dtype.kind in "iu" else ()))


def refuse_huge(path: Path) -> None:
    """Raise ArtifactError on a file whose operators together make more than MOST bytes of one image.

    Sizes that follow from no constant of the file count nothing.
    """
    import onnx
    from google.protobuf.message import DecodeError

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

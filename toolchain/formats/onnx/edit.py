"""Edits of ONNX graphs: passes over an `onnx_ir` model, the small operations that they share, and weights of 4 bits.

An edit is a function that changes a model in place and returns whether it changed anything; `run` runs several as one
sequence of passes. Files, onnx's checker and converter, and ONNX Runtime take protobuf. `ir.from_proto` copies no
weights, `ir.to_proto` copies them once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnx import ModelProto
    from onnx_ir.passes import PassBase


Edit = Callable[["ir.Model"], bool]
_LARGE = 4096
"""Bytes from which on a tensor is a weight, and not a shape, a scale or axes."""
_INT4_OPSET, _INT4_IR_VERSION = 21, 10
"""The first in which ONNX has INT4."""


def run(model: ir.Model, *edits: Edit | PassBase) -> ir.Model:
    """Run edits and passes of onnx-ir in their order, and return the model, changed in place.

    An error of an edit is raised unchanged, with a note that names the edit.
    """
    from onnx_ir.passes import PassBase, PassError, Sequential

    passes = [edit if isinstance(edit, PassBase) else _as_pass(edit) for edit in edits]
    try:
        return Sequential(*passes)(model).model
    except PassError as error:
        cause = error.__cause__ or error
        cause.add_note(str(error))
        raise cause from cause.__cause__


def edited(proto: ModelProto, *edits: Edit | PassBase) -> ModelProto:
    """Return the result of `run` on a protobuf model, which must not be used afterwards."""
    import onnx_ir as ir

    return to_proto(run(ir.from_proto(proto), *edits))


def to_proto(model: ir.Model) -> ModelProto:
    """Return a model as protobuf, without value_info of initializers: their tensors have type and shape."""
    import onnx_ir as ir

    proto: ModelProto = ir.to_proto(model)
    described = [info for info in proto.graph.value_info if info.name not in model.graph.initializers]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(described)
    return proto


def _as_pass(edit: Edit) -> PassBase:
    from onnx_ir.passes import InPlacePass, PassResult

    class EditPass(InPlacePass):
        """An edit as onnx-ir runs it."""

        def call(self, model: ir.Model) -> PassResult:
            return PassResult(model, edit(model))

        def __str__(self) -> str:
            return str(getattr(getattr(edit, "func", edit), "__name__", edit))

    return EditPass()


def constant(value: ir.Value | None) -> NDArray[Any] | None:
    """Return the array of an initializer or of a Constant node, None when the value is computed."""
    from onnx_ir.convenience import get_const_tensor

    tensor = None if value is None else get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def numbers(value: ir.Value | None) -> NDArray[Any]:
    """Return the array of a value that the caller knows to be a constant."""
    array = constant(value)
    assert array is not None, "the caller has checked that it is a constant"
    return array


def set_constant(value: ir.Value, array: ArrayLike) -> None:
    """Replace the values of an initializer, also by another type and shape."""
    import onnx_ir as ir

    values = np.asarray(array)
    tensor = ir.tensor(values, name=value.name)
    value.const_value, value.type, value.shape = tensor, ir.TensorType(tensor.dtype), ir.Shape(values.shape)


def add_constant(graph: ir.Graph, name: str, array: ArrayLike) -> ir.Value:
    """Add an initializer and return it; any other value with that name is renamed."""
    import onnx_ir as ir

    make_free(graph, name)
    value = ir.Value(name=name)
    set_constant(value, array)
    graph.initializers.add(value)
    return value


def node(
    kind: str, inputs: Iterable[ir.Value | None], outputs: Iterable[str], name: str = "", **attributes: Any
) -> ir.Node:
    """Return a new operator that makes values with the names `outputs`."""
    import onnx_ir as ir

    return ir.node(kind, list(inputs), attributes, outputs=[ir.Value(name=output) for output in outputs], name=name)


def substitute(operator: ir.Node, operators: list[ir.Node]) -> None:
    """Replace an operator by several, the last of which makes its output."""
    graph, old, new = operator.graph, operator.outputs[0], operators[-1].outputs[0]
    assert graph is not None, "only operators of a graph are replaced"
    graph.insert_before(operator, operators)
    describe_as(new, old)
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(operator, safe=True)


def describe_as(value: ir.Value, other: ir.Value) -> None:
    """Give a value the name, type, shape and metadata of the one that it replaces."""
    value.name, value.type, value.shape, value.doc_string = other.name, other.type, other.shape, other.doc_string
    value.metadata_props.clear()
    value.metadata_props.update(other.metadata_props)


def insert_first(graph: ir.Graph, nodes: Iterable[ir.Node]) -> None:
    """Put operators before all others."""
    added = list(nodes)
    if added:
        graph.insert_before(graph[0], added)


def values(graph: ir.Graph) -> Iterator[ir.Value]:
    """Yield every value of a graph, subgraphs included."""
    yield from graph.inputs
    yield from graph.initializers.values()
    for operator in graph:
        yield from operator.outputs
        for inner in subgraphs(operator):
            yield from values(inner)


def subgraphs(operator: ir.Node) -> Iterator[ir.Graph]:
    """Yield the graphs that an operator holds (If, Loop, Scan)."""
    import onnx_ir as ir

    for attribute in operator.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def rename(graph: ir.Graph, names: dict[ir.Value, str]) -> None:
    """Give values new names; initializers keep their order, on which the bytes of a file depend."""
    initializers = list(graph.initializers.values())
    graph.initializers.clear()
    for value, name in names.items():
        value.name = name
    for value in initializers:
        graph.initializers.add(value)


def make_free(graph: ir.Graph, name: str) -> None:
    """Rename every value called `name`, so that another value can have the name."""
    values_of_name = [value for value in values(graph) if value.name == name]
    if values_of_name:
        rename(graph, dict.fromkeys(values_of_name, f"{name}_inner"))


def forget_shapes(model: ir.Model) -> bool:
    """Remove the types and shapes of all computed values except the outputs: an edit may have changed them."""
    for value in values(model.graph):
        if value.producer() is not None and not value.is_graph_output():
            value.type = value.shape = None
    return True


def drop_unused(model: ir.Model) -> bool:
    """Remove the operators and initializers that no output needs."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    return RemoveUnusedNodesPass()(model).modified


def lift(model: ir.Model, opset: int, ir_version: int = 0) -> bool:
    """Convert a graph of an older opset to `opset` with onnx's converter, which never sees the large weights.

    Raises what the converter raises.
    """
    import onnx
    import onnx_ir as ir
    from onnx.version_converter import convert_version

    if model.opset_imports[""] >= opset:
        return False
    large = [
        (value, value.const_value)
        for value in model.graph.initializers.values()
        if value.const_value is not None and value.const_value.nbytes >= _LARGE
    ]
    for value, tensor in large:
        empty = onnx.TensorProto(data_type=tensor.dtype.value, dims=tensor.shape.numpy())
        value.const_value = ir.serde.deserialize_tensor(empty)
    try:
        lifted = ir.from_proto(convert_version(ir.to_proto(model), opset))
    finally:
        for value, tensor in large:
            value.const_value = tensor
    for value, tensor in large:
        lifted.graph.initializers[str(value.name)].const_value = tensor
    model.graph, model.ir_version = lifted.graph, max(lifted.ir_version, ir_version)
    return forget_shapes(model)


def infer_shapes(model: ir.Model) -> bool:
    """Store the type and shape of every value that onnx can infer."""
    import onnx
    import onnx_ir as ir

    model.graph = ir.from_proto(onnx.shape_inference.infer_shapes(ir.to_proto(model))).graph
    return True


def pack_int4(model: ir.Model) -> bool:
    """Store each int8 weight in front of DequantizeLinear that fits in [-8, 7] as INT4 and Cast.

    A Cast of a constant is folded when a session starts, so the kernels and their answers are those of the int8 file.
    onnxruntime 1.31 fuses no DequantizeLinear of INT4 itself: such a file is 2.5 to 7 times slower. Where no weight
    fits, the model stays as it is; otherwise it is converted to opset 21.
    """
    names = [str(value.name) for value in model.graph.initializers.values() if _fits_int4(value)]
    if names:
        lift_to_int4(model)
        insert_first(model.graph, [_replace_by_int4(model.graph, name) for name in names])
    return bool(names)


def lift_to_int4(model: ir.Model) -> bool:
    """Convert the model to an opset that has INT4, if it has an older one."""
    lifted = lift(model, _INT4_OPSET)
    model.ir_version = max(model.ir_version or 0, _INT4_IR_VERSION)
    return lifted


def _fits_int4(value: ir.Value) -> bool:
    import onnx_ir as ir

    tensor = value.const_value
    # Packing a single number, such as a zero point, saves nothing.
    if tensor is None or tensor.dtype != ir.DataType.INT8 or tensor.size <= 1:
        return False
    if not any(use.node.op_type == "DequantizeLinear" and use.idx == 0 for use in value.uses()):
        return False
    integers = tensor.numpy()
    return bool(integers.min() >= -8 and integers.max() <= 7)


def _replace_by_int4(graph: ir.Graph, name: str) -> ir.Node:
    """Replace an int8 tensor by an INT4 one, and return the Cast that turns it into int8 values again."""
    import ml_dtypes
    import onnx_ir as ir

    weight = graph.initializers[name]
    readers = list(weight.uses())
    rename(graph, {weight: f"{name}_int4"})
    set_constant(weight, numbers(weight).astype(ml_dtypes.int4))
    cast = node("Cast", [weight], [name], to=int(ir.DataType.INT8))
    for reader, index in readers:
        reader.replace_input_with(index, cast.outputs[0])
    return cast

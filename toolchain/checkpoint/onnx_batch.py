"""A dynamic batch axis for an ONNX graph: reshapes that hold or compute the batch size are made to infer it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from toolchain.checkpoint.onnx_run import answers, open_session
from toolchain.core.errors import CheckpointError
from toolchain.formats.onnx.edit import constant, set_input_constant

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

BATCH_AXIS = "batch"


def fixed_batch(graph: GraphProto) -> int | None:
    """Return the batch size that the input is fixed to, None when it is dynamic."""
    axis = graph.input[0].type.tensor_type.shape.dim[0]
    return axis.dim_value if axis.HasField("dim_value") and axis.dim_value > 0 else None


def free_batch(proto: ModelProto) -> None:
    """Make the input's batch axis dynamic and let each Reshape infer it, in place.

    A constant target that begins with the fixed size gets -1 there (0, which copies the axis, where it already infers
    another); a target computed from the batch size is replaced by the constant that it amounts to. Whether the
    result still answers the same is for the caller to check.
    """
    graph = proto.graph
    batch = fixed_batch(graph)
    _name_axis(graph)
    computed = []
    for node in [node for node in graph.node if node.op_type == "Reshape"]:
        target = constant(graph, node.input[1])
        if target is None:
            computed.append(node)
            continue
        sizes = [int(size) for size in target.ravel()]
        _forget_allowzero(node, sizes)
        if batch is not None:
            _infer_first(graph, node, sizes, batch)
    _settle_computed(proto, computed)


def _infer_first(graph: GraphProto, node: NodeProto, target: list[int], batch: int) -> None:
    if target and target[0] == batch:
        set_input_constant(graph, node, 1, [0 if -1 in target else -1, *target[1:]])


def _name_axis(graph: GraphProto) -> None:
    for value in (*graph.input[:1], *graph.output):
        shape = value.type.tensor_type.shape
        if shape.dim:
            shape.dim[0].Clear()
            shape.dim[0].dim_param = BATCH_AXIS
    del graph.value_info[:]


def _forget_allowzero(node: NodeProto, target: list[int]) -> None:
    # torch's exporter sets it on every reshape; without a 0 in the target it means nothing, few converters know it,
    # and with it the 0 of `_infer_first` would.
    if 0 not in target:
        for attribute in [attribute for attribute in node.attribute if attribute.name == "allowzero"]:
            node.attribute.remove(attribute)


def _settle_computed(proto: ModelProto, nodes: list[NodeProto]) -> None:
    """Replace targets computed from the batch size (`x.view(x.size(0), -1)`) by what they are at two batch sizes."""
    if not nodes:
        return
    try:
        seen = [_targets(proto, [node.input[1] for node in nodes], batch) for batch in (2, 3)]
    except CheckpointError:
        # Another operator holds the batch size; the comparison with the original will say so.
        return
    for node, two, three in zip(nodes, *seen, strict=True):
        if two.shape != three.shape:
            continue
        changing = np.flatnonzero(two != three)
        _forget_allowzero(node, two.tolist())
        if len(changing) == 0:
            set_input_constant(proto.graph, node, 1, two.tolist())
        elif list(changing) == [0] and two[0] == 2:
            rest = two[1:].tolist()
            set_input_constant(proto.graph, node, 1, [0 if -1 in rest else -1, *rest])


def _targets(proto: ModelProto, names: list[str], batch: int) -> list[np.ndarray]:
    from onnx import ModelProto, TensorProto, helper

    probe = ModelProto.FromString(proto.SerializeToString())
    del probe.graph.output[:]
    probe.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.INT64, None) for name in set(names))
    shape = [batch, *(axis.dim_value for axis in proto.graph.input[0].type.tensor_type.shape.dim[1:])]
    session = open_session(probe)
    values = answers(session, np.zeros(shape, np.float32))
    return [np.asarray(values[name]).ravel() for name in names]

"""Take out of an ONNX file what no runtime reads: at these model sizes it is a tenth of the bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto


def slim_onnx(model: ModelProto) -> ModelProto:
    """Return the model (changed in place) without source lines, module paths, node names and inferred shapes.

    Also without zero points that are all zero (the operators' default, ONNX DequantizeLinear), unused domains,
    functions and initializers; tensors between nodes get short names. Inputs, outputs and weights keep theirs.
    """
    graph = model.graph
    del graph.value_info[:], graph.metadata_props[:], model.functions[:], model.metadata_props[:]
    graph.ClearField("doc_string")
    for described in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        del described.metadata_props[:]
        described.ClearField("doc_string")
    _drop_zero_points(graph)
    _drop_unused(graph)
    _shorten(graph)
    used = {node.domain for node in graph.node} | {""}
    for entry in [entry for entry in model.opset_import if entry.domain not in used]:
        model.opset_import.remove(entry)
    return model


def _drop_zero_points(graph: GraphProto) -> None:
    """Only in front of Conv: onnxruntime fuses QGemm and MatMulInteger by the zero points they are given."""
    import onnx

    zero = {
        tensor.name
        for tensor in graph.initializer
        # uint8 is the type that a missing zero point means, so only here the graph's types stay as they are
        if tensor.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.INT32)
        and not onnx.numpy_helper.to_array(tensor).any()
    }
    elsewhere = {name for node in graph.node if node.op_type != "Conv" for name in node.input}
    for node in graph.node:
        weights = node.op_type == "DequantizeLinear" and node.output[0] not in elsewhere
        if weights and len(node.input) == 3 and node.input[2] in zero:
            del node.input[2]


def _drop_unused(graph: GraphProto) -> None:
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def _shorten(graph: GraphProto) -> None:
    if any(attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute):
        return  # a subgraph may refer to outer names
    kept = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    produced = (name for node in graph.node for name in node.output if name and name not in kept)
    short = {name: f"t{index}" for index, name in enumerate(produced)}
    if kept & set(short.values()):
        return
    for node in graph.node:
        node.name = ""
        for names in (node.input, node.output):
            names[:] = [short.get(name, name) for name in names]

"""Take out of an ONNX file what no runtime reads: of a file of 16 KiB it is a quarter of the bytes."""

from __future__ import annotations

import gc
import re
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

_WEIGHT = re.compile(r"(.+\.weight)(?:_quantized|_int8)?(?:_int4)?")
"""A layer's weight as torch names it, and what quantizers put behind it."""
_IMPLIED = {"strides": 1, "dilations": 1, "pads": 0}
"""What convolutions and pools do without the attribute; ONNX states it in words, not as a default of the schema."""

_MUCH = 4 << 20
"""Bytes that are worth a collection of garbage at once: it takes 0.3 s in a process that has imported torch."""


def slim_onnx(model: ModelProto | ir.Model) -> ModelProto:
    """Return a model, and change the given one, with what it computes, to the bit, and nothing else.

    Without dead nodes, functions, domains and initializers, source lines, module paths, inferred shapes, attributes
    that say what would be so anyway, zero points that are all zero (the operators' default, ONNX DequantizeLinear),
    and Reshapes that are dequantized only to be quantized alike; equal initializers are stored once. Names are short,
    but for inputs, outputs and weights: those keep their layer's, `features.conv1.weight`, in quantized files too.
    """
    import onnx_ir as ir
    from onnx_ir.passes import Sequential, common

    if not isinstance(model, ir.Model):
        _drop_zero_points(model.graph)
        _drop_requantized_reshapes(model.graph)
        model = ir.from_proto(model)
    tidy = Sequential(
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]  # it is not annotated
        common.RemoveUnusedOpsetsPass(),
        common.DeduplicateInitializersPass(),
        common.ClearMetadataAndDocStringPass(),
    )
    slim = ir.to_proto(tidy(model).model)
    # The parts of an ir.Model refer to each other, and each keeps all weights that were given.
    held = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
    del model
    if held >= _MUCH:
        gc.collect()
    graph = slim.graph
    del graph.value_info[:], graph.metadata_props[:], slim.metadata_props[:]
    graph.ClearField("doc_string")
    versions = {entry.domain: entry.version for entry in slim.opset_import}
    for node in graph.node:
        _drop_defaults(node, versions)
    _shorten(graph)
    return slim


def _drop_zero_points(graph: GraphProto) -> None:
    """Of biases, and of weights in front of Conv: onnxruntime fuses Gemm and MatMul by the zero points they are given.

    uint8 is the type that a missing zero point means to QuantizeLinear, so those of activations stay.
    """
    import onnx

    kinds = (onnx.TensorProto.INT8, onnx.TensorProto.INT32)
    zero = {
        tensor.name: tensor.data_type
        for tensor in graph.initializer
        if tensor.data_type in kinds and not onnx.numpy_helper.to_array(tensor).any()
    }
    elsewhere = {name for node in graph.node if node.op_type != "Conv" for name in node.input}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and len(node.input) == 3 and node.input[2] in zero:
            bias = zero[node.input[2]] == onnx.TensorProto.INT32
            if bias or node.output[0] not in elsewhere:
                del node.input[2]


def _drop_requantized_reshapes(graph: GraphProto) -> None:
    """Of Dequantize, Reshape, Quantize by the same scale keep the Reshape: it moves integers as it moves floats."""
    made_by = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in graph.output}
    for quantize in [node for node in graph.node if node.op_type == "QuantizeLinear"]:
        reshape = made_by.get(quantize.input[0])
        dequantize = made_by.get(reshape.input[0]) if reshape is not None and reshape.op_type == "Reshape" else None
        if reshape is None or dequantize is None or dequantize.op_type != "DequantizeLinear":
            continue
        between = (dequantize.output[0], reshape.output[0])
        alone = all(len(readers[name]) == 1 and name not in outputs for name in between)
        if alone and quantize.input[1:] == dequantize.input[1:]:
            reshape.input[0], reshape.output[0] = dequantize.input[0], quantize.output[0]
            graph.node.remove(dequantize)
            graph.node.remove(quantize)


def _drop_defaults(node: NodeProto, versions: dict[str, int]) -> None:
    import onnx

    try:
        schema = onnx.defs.get_schema(node.op_type, versions[node.domain], node.domain)
    except onnx.defs.SchemaError:
        return  # of a domain of its own
    windowed = "kernel_shape" in schema.attributes
    for attribute in list(node.attribute):
        default = schema.attributes[attribute.name].default_value
        value = onnx.helper.get_attribute_value(attribute)
        implied = windowed and attribute.name in _IMPLIED and set(value) <= {_IMPLIED[attribute.name]}
        if implied or (default.type == attribute.type and value == onnx.helper.get_attribute_value(default)):
            node.attribute.remove(attribute)


def _shorten(graph: GraphProto) -> None:
    if any(attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute):
        return  # a subgraph may refer to outer names
    short = {value.name: value.name for value in (*graph.input, *graph.output)}
    for tensor in graph.initializer:
        if tensor.name not in short and (name := _weight_name(tensor)):
            short[tensor.name] = name if name not in short.values() else tensor.name
    taken = set(short.values())
    free = (f"t{number}" for number in count() if f"t{number}" not in taken)
    made = (name for node in graph.node for name in node.output if name)
    for name in (*(tensor.name for tensor in graph.initializer), *made):
        if name not in short:
            short[name] = next(free)
    for tensor in graph.initializer:
        tensor.name = short[tensor.name]
    for node in graph.node:
        node.name = ""
        for names in (node.input, node.output):
            names[:] = [short.get(name, name) for name in names]


def _weight_name(tensor: TensorProto) -> str:
    """Return what a weight is called, empty for any other initializer; a user's file may call it anything."""
    if named := _WEIGHT.fullmatch(tensor.name):
        return named[1]
    return tensor.name if sum(size > 1 for size in tensor.dims) > 1 else ""

"""Remove from an ONNX file what no runtime reads: a quarter of the bytes in a file of 16 KiB."""

from __future__ import annotations

import gc
import re
from itertools import count
from typing import TYPE_CHECKING

from toolchain.formats.onnx.edit import constant, describe_as, rename, run, subgraphs

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnx import AttributeProto, ModelProto

_WEIGHT = re.compile(r"(.+\.weight)(?:_quantized|_int8)?(?:_int4)?")
"""A layer's weight as torch names it, and the suffixes of quantizers."""
_IMPLIED = {"strides": 1, "dilations": 1, "pads": 0}
"""Defaults of convolutions and pools that ONNX states in its text alone, not in the schema."""
_MUCH = 4 << 20
"""Bytes of weights from which on garbage is collected at once; that takes 0.3 s in a process with torch."""


def slim_onnx(model: ModelProto | ir.Model) -> ModelProto:
    """Return the model with everything removed that does not change its answers by a bit; the given one is changed.

    Removed are dead nodes, functions, domains and initializers, source lines, module paths, inferred shapes, attributes
    equal to their default, zero points that are all zero (the default of DequantizeLinear), and pairs of Dequantize and
    Quantize around a Reshape. Equal initializers are stored once. Names become short, except those of inputs, outputs
    and weights, which keep their layer's name (`features.conv1.weight`), in quantized files too.
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
    if weight_bytes >= _MUCH:
        gc.collect()
    return proto


def drop_zero_points(model: ir.Model) -> bool:
    """Drop zero points that are all zero: of biases, and of weights in front of Conv alone.

    onnxruntime fuses Gemm and MatMul by the zero points they are given. uint8 is the type that a missing zero point
    means to QuantizeLinear, so those of activations stay.
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
    """Of Dequantize, Reshape and Quantize by one scale keep only the Reshape, which moves integers just as well."""
    changed = False
    for quantize in [node for node in model.graph if node.op_type == "QuantizeLinear"]:
        reshape = _sole_producer(quantize, "Reshape")
        dequantize = None if reshape is None else _sole_producer(reshape, "DequantizeLinear")
        if reshape is None or dequantize is None or quantize.inputs[1:] != dequantize.inputs[1:]:
            continue
        integers, moved = quantize.outputs[0], reshape.outputs[0]
        integers.replace_all_uses_with(moved, replace_graph_outputs=True)
        describe_as(moved, integers)
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
    """Name every value but inputs, outputs and weights `t0`, `t1` and so on, and no operator."""
    graph = model.graph
    if _has_subgraphs(model):
        return False  # a subgraph may refer to outer names
    names = {value: value.name or "" for value in (*graph.inputs, *graph.outputs)}
    weights = list(graph.initializers.values())
    for value in weights:
        if value not in names and (name := _weight_name(value)):
            names[value] = name if name not in names.values() else value.name or ""
    taken = set(names.values())
    free = (f"t{number}" for number in count() if f"t{number}" not in taken)
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
    """Return what a weight is called, empty for any other initializer; a user's file may call it anything."""
    name = value.name or ""
    if named := _WEIGHT.fullmatch(name):
        return named[1]
    shape = value.const_value.shape.numpy() if value.const_value is not None else ()
    return name if sum(size > 1 for size in shape) > 1 else ""

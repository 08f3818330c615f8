"""Store int8 weights that fit into four bits in half a byte each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolchain.formats.onnx.edit import insert_first, lift, node, numbers, rename, set_constant

if TYPE_CHECKING:
    import onnx_ir as ir

OPSET, IR_VERSION = 21, 10
"""The first in which ONNX has INT4."""


def pack_int4(model: ir.Model) -> bool:
    """Store each int8 weight in front of DequantizeLinear that fits in [-8, 7] as INT4 and Cast.

    A Cast of a constant is folded when a session starts, so the kernels, and the bits that they answer, are those of
    the int8 file. DequantizeLinear on INT4 itself would not be: onnxruntime 1.31 fuses none of it, and such a file is
    2.5 to 7 times slower. The model stays as it is where no weight fits, else it comes to opset 21.
    """
    names = [str(value.name) for value in model.graph.initializers.values() if _fits(value)]
    if names:
        lift_to_int4(model)
        insert_first(model.graph, [_packed(model.graph, name) for name in names])
    return bool(names)


def lift_to_int4(model: ir.Model) -> bool:
    """Bring the model to an opset that has INT4."""
    lifted = lift(model, OPSET)
    model.ir_version = max(model.ir_version or 0, IR_VERSION)
    return lifted


def _fits(value: ir.Value) -> bool:
    import onnx_ir as ir

    tensor = value.const_value
    # Packing a single number, such as a zero point, saves nothing.
    if tensor is None or tensor.dtype != ir.DataType.INT8 or tensor.size <= 1:
        return False
    if not any(use.node.op_type == "DequantizeLinear" and use.idx == 0 for use in value.uses()):
        return False
    numbers = tensor.numpy()
    return bool(numbers.min() >= -8 and numbers.max() <= 7)


def _packed(graph: ir.Graph, name: str) -> ir.Node:
    """Replace an int8 tensor by an INT4 one, and return the Cast that makes the int8 values of it again."""
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

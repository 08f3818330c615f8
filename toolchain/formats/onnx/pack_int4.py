"""Store int8 weights that need no more than four bits in half a byte each."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

OPSET = 21
"""The first in which ONNX has INT4."""


def pack_int4(model: ModelProto) -> ModelProto:
    """Return the model with each int8 weight in front of DequantizeLinear that fits in [-8, 7] as INT4 and Cast.

    A Cast of a constant is folded when a session starts, so the kernels, and the bits that they answer, are those of
    the int8 file. DequantizeLinear on INT4 itself would not be: onnxruntime 1.31 fuses none of it, and such a file is
    2.5 to 7 times slower. The model comes back as it is where no weight fits, else in opset 21.
    """
    import numpy as np
    from onnx import TensorProto, numpy_helper

    read = {node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    chosen = [
        tensor.name
        for tensor in model.graph.initializer
        # A single number, such as a zero point, gains nothing.
        if tensor.name in read and tensor.data_type == TensorProto.INT8 and np.prod(tensor.dims) > 1
        if (values := numpy_helper.to_array(tensor)).min() >= -8 and values.max() <= 7
    ]
    if not chosen:
        return model
    model = in_opset(model)
    casts = [_packed(model.graph, name) for name in chosen]
    computed = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *computed])
    return model


def in_opset(model: ModelProto) -> ModelProto:
    """Return the model in an opset that has INT4."""
    from onnx.version_converter import convert_version

    own = next(entry.version for entry in model.opset_import if entry.domain == "")
    if own < OPSET:
        model = convert_version(model, OPSET)
        del model.graph.value_info[:]  # shapes that it inferred
    model.ir_version = max(model.ir_version, 10)
    return model


def _packed(graph: GraphProto, name: str) -> NodeProto:
    """Put the INT4 tensor in the place of the int8 one, and return the Cast that gives back what `name` was."""
    import ml_dtypes
    from onnx import TensorProto, helper, numpy_helper

    tensor = next(one for one in graph.initializer if one.name == name)
    packed = numpy_helper.to_array(tensor).astype(ml_dtypes.int4)
    tensor.CopyFrom(numpy_helper.from_array(packed, f"{name}_int4"))
    return helper.make_node("Cast", [tensor.name], [name], to=TensorProto.INT8)

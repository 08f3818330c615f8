"""Static int4 in ONNX: a QDQ file of int8 whose weights need four bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolchain.quantize.bias_overflow import STORED
from toolchain.quantize.onnx_layers import of_one_channel, weighted
from toolchain.quantize.weights import integers

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


def four_bits(model: ModelProto, source: ModelProto) -> ModelProto:
    """Return the QDQ model (changed in place) with weights in [-7, 7], rounded anew from the float graph `source`.

    Biases must be float yet (`QuantizeBias`), since their scale is the weights'. Convolutions of one channel keep eight
    bits, as they do in TFLite: they hold few weights and are hit hardest. `toolchain.formats.onnx.pack_int4` stores the
    result in half the bytes.
    """
    from onnx import numpy_helper

    floats = {tensor.name: tensor for tensor in source.graph.initializer}
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    readers = {node.input[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    for name, layer in weighted(source).items():
        reader = readers.get(name + STORED)
        if reader is None or of_one_channel(layer, floats[name].dims):
            continue
        held, factor = (stored[one] for one in reader.input[:2])
        values, scale = integers(numpy_helper.to_array(floats[name]), 4, _axis(reader) if factor.dims else None)
        held.CopyFrom(numpy_helper.from_array(values, held.name))
        factor.CopyFrom(numpy_helper.from_array(scale.reshape(factor.dims), factor.name))
    return model


def _axis(reader: NodeProto) -> int:
    return next((one.i for one in reader.attribute if one.name == "axis"), 1)

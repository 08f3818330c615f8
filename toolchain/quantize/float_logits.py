"""The last layer of a QDQ graph gives its answer in float: its kernel has it anyway."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto


def float_logits(model: ModelProto) -> ModelProto:
    """Leave out the last QuantizeLinear and DequantizeLinear after a Gemm or MatMul, in place.

    One node less to run, and no clipping of the logits to the calibrated range.
    """
    graph = model.graph
    made_by = {name: node for node in graph.node for name in node.output}
    for output in graph.output:
        chain = [made_by[output.name]]
        while len(chain) < 3 and chain[-1].input[0] in made_by:
            chain.append(made_by[chain[-1].input[0]])
        kinds = [node.op_type for node in chain]
        if kinds[:2] == ["DequantizeLinear", "QuantizeLinear"] and kinds[2:] in (["Gemm"], ["MatMul"]):
            chain[2].output[0] = output.name
            graph.node.remove(chain[0])
            graph.node.remove(chain[1])
            _integer_bias(graph, chain[2])
    return model


def _integer_bias(graph: GraphProto, layer: NodeProto) -> None:
    """Store the layer's bias as int32 in units of its products.

    onnxruntime quantizes a float bias itself only where the answer is quantized too, and its kernel takes no other.
    """
    from onnx import helper, numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    readers = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    if not (set(layer.input[:2]) <= set(readers) and set(layer.input[2:]) & set(constants)):
        return
    names = [readers[name].input[1] for name in layer.input[:2]]
    factors = [numpy_helper.to_array(constants[name]) for name in names]
    scale = np.float32(factors[0]) * factors[1].astype(np.float32)
    bias = numpy_helper.to_array(constants[layer.input[2]])
    stored, factor, zero, given = (f"logits_bias_{part}" for part in ("quantized", "scale", "zero_point", "float"))
    integers = np.rint(bias / scale).astype(np.int32)
    for name, values in ((stored, integers), (zero, np.zeros_like(scale, np.int32))):
        graph.initializer.append(numpy_helper.from_array(values, name))
    graph.node.insert(0, helper.make_node("DequantizeLinear", [stored, factor, zero], [given], axis=0))
    # A product of constants, folded when a session starts: the same bits in fewer bytes.
    graph.node.insert(0, helper.make_node("Mul", names, [factor]))
    layer.input[2] = given

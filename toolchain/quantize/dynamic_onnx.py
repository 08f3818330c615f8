"""Dynamic int8 in ONNX: MatMul and Gemm in integers, with the scale of their input taken at run time.

The graph is that of onnxruntime's `quantize_dynamic`, which holds the weights four times meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from toolchain.quantize.bias_overflow import STORED
from toolchain.quantize.onnx_layers import channel_axis, weighted
from toolchain.quantize.weights import integers

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

OPSET = 11
"""The first that has DynamicQuantizeLinear."""


def dynamic_onnx(model: ModelProto, *, per_channel: bool, largest_level: int, keep: Collection[str] = ()) -> ModelProto:
    """Return the model, which may be changed in place, with its MatMuls and Gemms by constant weights in integers.

    largest_level: of a weight's integer. What reads the weights that `keep` names stays as it is.
    """
    from onnx.version_converter import convert_version

    if next(entry.version for entry in model.opset_import if entry.domain == "") < OPSET:
        model = convert_version(model, OPSET)
    graph = model.graph
    axes = {name: axis for name, axis in _output_axes(model).items() if name not in keep}
    computed, quantized = list(graph.node), set[str]()
    del graph.node[:]
    for node in computed:
        if len(node.input) > 1 and node.input[1] in axes:
            graph.node.extend(_in_integers(node, quantized))
        else:
            graph.node.append(node)
    for name, axis in axes.items():
        _store(graph, name, axis, per_channel=per_channel, largest_level=largest_level)
    return model


def _output_axes(model: ModelProto) -> dict[str, int]:
    """Return the axis of output channels of each weight that is only multiplied by, and by all nodes in one way."""
    ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    axes = {}
    for name in weighted(model):
        readers = [node for node in model.graph.node if name in node.input]
        ways = {channel_axis(node, ranks[name]) for node in readers}
        if ranks[name] > 1 and len(ways) == 1 and all(_multiplies(node) and node.input[1] == name for node in readers):
            axes[name] = ways.pop()
    return axes


def _multiplies(node: NodeProto) -> bool:
    """Return whether a node is a MatMul, or a Gemm that does nothing but multiply by its weight and add a bias."""
    if node.op_type != "Gemm":
        return node.op_type == "MatMul"
    plain = {"alpha": 1.0, "beta": 1.0, "transA": 0}
    return all((one.f or one.i) == plain[one.name] for one in node.attribute if one.name in plain)


def _in_integers(node: NodeProto, quantized: set[str]) -> Iterator[NodeProto]:
    """Yield the nodes to put in its place; quantized: the inputs for which there are integers already."""
    from onnx import TensorProto, helper

    given, weight = node.input[:2]
    bias = node.input[2] if len(node.input) > 2 else ""
    product = f"{node.output[0]}_MatMul" if bias else node.output[0]
    source, factor, zero = (f"{given}_{part}" for part in ("quantized", "scale", "zero_point"))
    if given not in quantized:
        quantized.add(given)
        yield helper.make_node("DynamicQuantizeLinear", [given], [source, factor, zero])
    whole, wide, unit = (f"{product}_{part}" for part in ("integers", "float", "unit"))
    yield helper.make_node("Mul", [factor, f"{weight}_scale"], [unit])
    yield helper.make_node("MatMulInteger", [source, f"{weight}{STORED}", zero, f"{weight}_zero_point"], [whole])
    yield helper.make_node("Cast", [whole], [wide], to=TensorProto.FLOAT)
    yield helper.make_node("Mul", [wide, unit], [product])
    if bias:
        yield helper.make_node("Add", [product, bias], node.output)


def _store(graph: GraphProto, name: str, axis: int, *, per_channel: bool, largest_level: int) -> None:
    """Put integers [inputs, outputs], their scales and zero points in the place of a float weight."""
    import numpy as np
    from onnx import numpy_helper

    stored = next(one for one in graph.initializer if one.name == name)
    weights = numpy_helper.to_array(stored)
    values, scale = integers(weights, 8, axis if per_channel else None, largest_level=largest_level)
    graph.initializer.remove(stored)
    factors = scale.reshape(-1) if per_channel else scale.reshape(())
    parts = {
        f"{name}_scale": factors,
        f"{name}_zero_point": np.zeros_like(factors, np.int8),
        f"{name}{STORED}": values if axis else values.T,
    }
    graph.initializer.extend(numpy_helper.from_array(part, key) for key, part in parts.items())

"""Dynamic int8 in ONNX: MatMul and Gemm in integers, with the scale of their input taken at run time.

The graph is that of onnxruntime's `quantize_dynamic`, which holds the weights four times meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from toolchain.formats.onnx.edit import add_constant, lift, node, numbers, substitute
from toolchain.quantize.bias_overflow import STORED
from toolchain.quantize.onnx_layers import channel_axis, name_of, weighted
from toolchain.quantize.weights import integers

if TYPE_CHECKING:
    import onnx_ir as ir

OPSET = 11
"""The first that has DynamicQuantizeLinear."""
_PLAIN = {"alpha": 1.0, "beta": 1.0, "transA": 0}
"""Attributes of a Gemm that does nothing but multiply by its weight and add a bias."""


def dynamic_onnx(model: ir.Model, *, per_channel: bool, largest_level: int, keep: Collection[str] = ()) -> bool:
    """Compute the MatMuls and Gemms by constant weights in integers.

    largest_level: largest absolute integer of a weight. Layers with weights that `keep` names stay as they are.
    """
    lift(model, OPSET)
    axes = {name: axis for name, axis in _output_axes(model).items() if name not in keep}
    weights = {
        name: _stored(model.graph, name, axis, per_channel=per_channel, largest_level=largest_level)
        for name, axis in axes.items()
    }
    quantized: dict[ir.Value | None, list[ir.Value]] = {}
    for layer in list(model.graph):
        if len(layer.inputs) > 1 and name_of(layer.inputs[1]) in weights:
            substitute(layer, _in_integers(layer, weights[name_of(layer.inputs[1])], quantized))
    return bool(weights)


def _output_axes(model: ir.Model) -> dict[str, int]:
    """Return the axis of output channels of each weight that all its readers multiply by along the same axis."""
    axes = {}
    for name in weighted(model):
        weight = model.graph.initializers[name]
        rank = len(weight.shape or ())
        readers = weight.consumers()
        possible = {channel_axis(reader, rank) for reader in readers}
        by_it = all(_multiplies(reader) and reader.inputs[1] is weight for reader in readers)
        if rank > 1 and len(possible) == 1 and by_it:
            axes[name] = possible.pop()
    return axes


def _multiplies(layer: ir.Node) -> bool:
    """Return whether a node is a MatMul, or a Gemm that does nothing but multiply by its weight and add a bias."""
    if layer.op_type != "Gemm":
        return layer.op_type == "MatMul"
    return all(attribute.value == _PLAIN.get(name, attribute.value) for name, attribute in layer.attributes.items())


def _in_integers(
    layer: ir.Node, weight: tuple[ir.Value, ...], quantized: dict[ir.Value | None, list[ir.Value]]
) -> list[ir.Node]:
    """Return the nodes that replace a layer; quantized: integers, scale and zero point of earlier inputs."""
    import onnx_ir as ir

    given, bias = layer.inputs[0], layer.inputs[2] if len(layer.inputs) > 2 else None
    result = name_of(layer.outputs[0])
    product = f"{result}_MatMul" if bias else result
    weight_scale, weight_zero, stored = weight
    nodes = []
    if given not in quantized:
        outputs = [f"{name_of(given)}_{part}" for part in ("quantized", "scale", "zero_point")]
        nodes.append(node("DynamicQuantizeLinear", [given], outputs))
        quantized[given] = list(nodes[0].outputs)
    source, scale, zero = quantized[given]
    unit = node("Mul", [scale, weight_scale], [f"{product}_unit"])
    whole = node("MatMulInteger", [source, stored, zero, weight_zero], [f"{product}_integers"])
    wide = node("Cast", [whole.outputs[0]], [f"{product}_float"], to=int(ir.DataType.FLOAT))
    scaled = node("Mul", [wide.outputs[0], unit.outputs[0]], [product])
    nodes += [unit, whole, wide, scaled]
    return [*nodes, node("Add", [scaled.outputs[0], bias], [result])] if bias else nodes


def _stored(graph: ir.Graph, name: str, axis: int, *, per_channel: bool, largest_level: int) -> tuple[ir.Value, ...]:
    """Replace a float weight by its scales, zero points and integers [inputs, outputs], and return the three."""
    weights = numbers(graph.initializers.pop(name))
    values, scale = integers(weights, 8, axis if per_channel else None, largest_level=largest_level)
    factors = scale.reshape(-1) if per_channel else scale.reshape(())
    parts = {
        f"{name}_scale": factors,
        f"{name}_zero_point": np.zeros_like(factors, np.int8),
        f"{name}{STORED}": values if axis else values.T,
    }
    return tuple(add_constant(graph, key, part) for key, part in parts.items())

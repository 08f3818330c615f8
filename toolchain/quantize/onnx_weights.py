"""The forms in which an ONNX graph holds weights of fewer bits.

Expanded when the file is loaded (`expand_at_load`), multiplied as integers by an input that is quantized at run time
(`dynamic_onnx`), and, in a QDQ graph, rounded to 4 bits (`four_bits`) or given wider scales (`widen_scales`).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from toolchain.core.errors import StageError
from toolchain.formats.onnx.edit import (
    add_constant,
    constant,
    insert_first,
    lift,
    lift_to_int4,
    node,
    numbers,
    set_constant,
    substitute,
)
from toolchain.quantize.onnx_layers import (
    channel_axis,
    name_of,
    needs_8_bits,
    of_one_channel,
    producer,
    recurrent,
    weighted,
)
from toolchain.quantize.weights import Weight, integers, wider

if TYPE_CHECKING:
    import onnx_ir as ir

DYNAMIC_OPSET = 11
"""The first opset that has DynamicQuantizeLinear."""
STORED = "_quantized"
"""Suffix that onnxruntime.quantization gives the name of a weight's integers."""
_PLAIN = {"alpha": 1.0, "beta": 1.0, "transA": 0}
"""Attributes of a Gemm that only multiplies by its weight and adds a bias."""


def expand_at_load(model: ir.Model, *, bits: int = 8, per_channel: bool = True, keep: Collection[str] = ()) -> bool:
    """Store each layer's float weight in 4, 8 or 16 bits, from which the runtime makes floats when it loads the file.

    16 bits are a float16 and a Cast, fewer an integer, a Cast and a Mul by the scale. Both are constants, which every
    graph optimizer folds when the session starts, so an inference costs what the float file costs. DequantizeLinear
    would run again in each inference: onnxruntime keeps it for QDQ fusion. Recurrent layers and convolutions of one
    channel take at least 8 bits. The weights in `keep` stay float. Raises StageError on weights that float16 cannot
    hold.
    """
    if bits == 4:
        lift_to_int4(model)
    graph = model.graph
    layers = {name: layer for name, layer in (weighted(model) | recurrent(model)).items() if name not in keep}
    expansions: list[ir.Node] = []
    for name, layer in layers.items():
        weight = graph.initializers.pop(name)
        weights = numbers(weight)
        if bits == 16:
            expansion = _from_float16(graph, name, weights)
        else:
            axis = channel_axis(layer, weights.ndim) if per_channel else None
            least = 8 if needs_8_bits(layer, weights.shape) else bits
            expansion = _from_integers(graph, name, least, *integers(weights, least, axis))
        weight.replace_all_uses_with(expansion[-1].outputs[0])
        expansions += expansion
    insert_first(graph, expansions)
    return bool(layers)


def _from_float16(graph: ir.Graph, name: str, weights: NDArray[np.float32]) -> list[ir.Node]:
    import onnx_ir as ir

    if np.abs(weights).max(initial=0) > np.finfo(np.float16).max:
        raise StageError(f"{name} has weights that float16 cannot hold (65504 at most); take another scheme")
    half = add_constant(graph, f"{name}_float16", weights.astype(np.float16))
    return [node("Cast", [half], [name], to=int(ir.DataType.FLOAT))]


def _from_integers(
    graph: ir.Graph, name: str, bits: int, values: NDArray[np.int8], scale: NDArray[np.float32]
) -> list[ir.Node]:
    import ml_dtypes
    import onnx_ir as ir

    stored = add_constant(graph, f"{name}_int{bits}", values.astype(ml_dtypes.int4) if bits == 4 else values)
    factor = add_constant(graph, f"{name}_scale", scale)
    cast = node("Cast", [stored], [f"{name}_cast"], to=int(ir.DataType.FLOAT))
    return [cast, node("Mul", [cast.outputs[0], factor], [name])]


def dynamic_onnx(model: ir.Model, *, per_channel: bool, largest_level: int, keep: Collection[str] = ()) -> bool:
    """Compute the MatMuls and Gemms by constant weights in integers, with the scale of their input taken at run time.

    The graph is that of onnxruntime's `quantize_dynamic`, which would hold the weights four times meanwhile.
    largest_level: largest absolute integer of a weight. Layers with the weights in `keep` stay as they are.
    """
    lift(model, DYNAMIC_OPSET)
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
        is_factor = all(_multiplies(reader) and reader.inputs[1] is weight for reader in readers)
        if rank > 1 and len(possible) == 1 and is_factor:
            axes[name] = possible.pop()
    return axes


def _multiplies(layer: ir.Node) -> bool:
    """Return whether a node is a MatMul, or a Gemm that only multiplies by its weight and adds a bias."""
    if layer.op_type != "Gemm":
        return layer.op_type == "MatMul"
    return all(attribute.value == _PLAIN.get(name, attribute.value) for name, attribute in layer.attributes.items())


def _in_integers(
    layer: ir.Node, weight: tuple[ir.Value, ...], quantized: dict[ir.Value | None, list[ir.Value]]
) -> list[ir.Node]:
    """Return the nodes that replace a layer.

    weight: as `_stored` returns it. quantized: integers, scale and zero point of the inputs of earlier layers.
    """
    import onnx_ir as ir

    source, bias = layer.inputs[0], layer.inputs[2] if len(layer.inputs) > 2 else None
    result = name_of(layer.outputs[0])
    product = f"{result}_MatMul" if bias else result
    weight_scale, weight_zero, stored = weight
    nodes = []
    if source not in quantized:
        outputs = [f"{name_of(source)}_{part}" for part in ("quantized", "scale", "zero_point")]
        nodes.append(node("DynamicQuantizeLinear", [source], outputs))
        quantized[source] = list(nodes[0].outputs)
    values, scale, zero = quantized[source]
    unit = node("Mul", [scale, weight_scale], [f"{product}_unit"])
    whole = node("MatMulInteger", [values, stored, zero, weight_zero], [f"{product}_integers"])
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


def four_bits(model: ir.Model, source: ir.Model) -> bool:
    """Round the weights of a QDQ model to [-7, 7], from those of its float graph `source`.

    Biases must still be float (`QuantizeBias`), because their scale depends on that of the weights. Convolutions of one
    channel keep eight bits, as they do in TFLite: they have few weights and lose most. `pack_int4` stores the result in
    half the bytes.
    """
    stored = model.graph.initializers
    for name, layer in weighted(source).items():
        weight, floats = stored.get(name + STORED), numbers(source.graph.initializers[name])
        readers = [] if weight is None else [node for node in weight.consumers() if node.op_type == "DequantizeLinear"]
        if weight is None or not readers or of_one_channel(layer, floats.shape):
            continue
        factor = stored[name_of(readers[-1].inputs[1])]
        shape = numbers(factor).shape
        rounded, scale = integers(floats, 4, readers[-1].attributes.get_int("axis", 1) if shape else None)
        set_constant(weight, rounded)
        set_constant(factor, scale.reshape(shape))
    return True


def widen_scales(model: ir.Model, source: ir.Model) -> bool:
    """Widen the scales of a QDQ model until every float bias fits into 32 bits; `source`: its float graph."""
    changed = False
    for layer in model.graph:
        bias = constant(layer.inputs[2]) if len(layer.inputs) > 2 else None
        readers = [reader for value in layer.inputs[:2] if (reader := producer(value, "DequantizeLinear"))]
        if bias is None or len(readers) < 2:
            continue
        unit, (values, scale) = readers[0].inputs[1], readers[1].inputs[:2]
        original = source.graph.initializers.get(name_of(values).removesuffix(STORED))
        if original is None or values is None or scale is None:
            continue
        weight = Weight(numbers(values), numbers(scale), readers[1].attributes.get_int("axis", 0))
        if widened := wider(weight, numbers(original), bias, float(numbers(unit))):
            set_constant(values, widened.integers)
            set_constant(scale, widened.scale)
            changed = True
    return changed

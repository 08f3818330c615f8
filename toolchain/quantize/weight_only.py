"""Weights in few bits that a runtime expands once, when it loads the file: float speed in a fraction of the bytes."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from toolchain.core.errors import StageError
from toolchain.formats.onnx.edit import add_constant, insert_first, node, numbers
from toolchain.formats.onnx.pack_int4 import lift_to_int4
from toolchain.quantize.onnx_layers import channel_axis, recurrent, wants_8_bits, weighted
from toolchain.quantize.weights import integers

if TYPE_CHECKING:
    import onnx_ir as ir


def expand_at_load(model: ir.Model, *, bits: int = 8, per_channel: bool = True, keep: Collection[str] = ()) -> bool:
    """Store each layer's float weight in 4, 8 or 16 bits.

    16 bits are a float16 and a Cast, fewer an integer, a Cast and a Mul by the scale (`toolchain.quantize.weights`).
    Both are constants, which every graph optimizer folds when the session starts, so an inference costs what the
    float file costs. DequantizeLinear would run again in each inference: onnxruntime keeps it for QDQ fusion.
    Recurrent layers and convolutions of one channel take no fewer than 8 bits. Those that `keep` names stay float.
    Raises StageError on weights that float16 cannot hold.
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
            expansion = _half(graph, name, weights)
        else:
            axis = channel_axis(layer, weights.ndim) if per_channel else None
            least = 8 if wants_8_bits(layer, weights.shape) else bits
            expansion = _expansion(graph, name, least, *integers(weights, least, axis))
        weight.replace_all_uses_with(expansion[-1].outputs[0])
        expansions += expansion
    insert_first(graph, expansions)
    return bool(layers)


def _half(graph: ir.Graph, name: str, weights: NDArray[np.float32]) -> list[ir.Node]:
    import onnx_ir as ir

    if np.abs(weights).max(initial=0) > np.finfo(np.float16).max:
        raise StageError(f"{name} has weights that float16 cannot hold (65504 at most); take another scheme")
    half = add_constant(graph, f"{name}_float16", weights.astype(np.float16))
    return [node("Cast", [half], [name], to=int(ir.DataType.FLOAT))]


def _expansion(
    graph: ir.Graph, name: str, bits: int, values: NDArray[np.int8], scale: NDArray[np.float32]
) -> list[ir.Node]:
    import ml_dtypes
    import onnx_ir as ir

    stored = add_constant(graph, f"{name}_int{bits}", values.astype(ml_dtypes.int4) if bits == 4 else values)
    factor = add_constant(graph, f"{name}_scale", scale)
    cast = node("Cast", [stored], [f"{name}_cast"], to=int(ir.DataType.FLOAT))
    return [cast, node("Mul", [cast.outputs[0], factor], [name])]

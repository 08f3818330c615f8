"""Small weights that a runtime expands once, when it loads the file: float speed in a fraction of the bytes."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from toolchain.core.errors import StageError
from toolchain.formats.onnx.pack_int4 import in_opset
from toolchain.quantize.onnx_layers import channel_axis, recurrent, wants_8_bits, weighted
from toolchain.quantize.weights import integers

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto


def expand_at_load(
    model: ModelProto, *, bits: int = 8, per_channel: bool = True, keep: Collection[str] = ()
) -> ModelProto:
    """Return the model with each layer's float weight in 4, 8 or 16 bits; it may be changed in place.

    16 bits are a float16 and a Cast, fewer an integer, a Cast and a Mul by the scale (`toolchain.quantize.weights`).
    Both are constants, which every graph optimizer folds when the session starts, so an inference costs what the
    float file costs. DequantizeLinear would run again in each inference: onnxruntime keeps it for QDQ fusion.
    Recurrent layers and convolutions of one channel take no fewer than 8 bits. Those that `keep` names stay float.
    Raises StageError on weights that float16 cannot hold.
    """
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    small: dict[str, list[TensorProto]] = {}
    expansions: list[NodeProto] = []
    for name, node in (weighted(model) | recurrent(model)).items():
        if name in keep:
            continue
        weights = _floats(stored[name])
        # Not of use any more, and several copies of it would be made on the way to another opset.
        stored[name].ClearField("raw_data")
        stored[name].ClearField("float_data")
        if bits == 16:
            small[name], nodes = _half(name, weights)
        else:
            axis = channel_axis(node, weights.ndim) if per_channel else None
            own = 8 if wants_8_bits(node, weights.shape) else bits
            small[name], nodes = _expansion(name, own, *integers(weights, own, axis))
        expansions += nodes
    if bits == 4:
        model = in_opset(model)
    graph = model.graph
    for name, tensors in small.items():
        graph.initializer.remove(next(one for one in graph.initializer if one.name == name))
        graph.initializer.extend(tensors)
    computed = list(graph.node)
    del graph.node[:]
    graph.node.extend([*expansions, *computed])
    return model


def _floats(tensor: Any) -> NDArray[np.float32]:
    from onnx import numpy_helper

    weights: NDArray[np.float32] = numpy_helper.to_array(tensor)
    return weights


def _half(name: str, weights: NDArray[np.float32]) -> tuple[list[TensorProto], list[NodeProto]]:
    from onnx import TensorProto, helper, numpy_helper

    if np.abs(weights).max(initial=0) > np.finfo(np.float16).max:
        raise StageError(f"{name} has weights that float16 cannot hold (65504 at most); take another scheme")
    half = numpy_helper.from_array(weights.astype(np.float16), f"{name}_float16")
    return [half], [helper.make_node("Cast", [half.name], [name], to=TensorProto.FLOAT)]


def _expansion(
    name: str, bits: int, values: NDArray[np.int8], scale: NDArray[np.float32]
) -> tuple[list[TensorProto], list[NodeProto]]:
    import ml_dtypes
    from onnx import TensorProto, helper, numpy_helper

    stored, factor, unscaled = f"{name}_int{bits}", f"{name}_scale", f"{name}_cast"
    packed = values.astype(ml_dtypes.int4) if bits == 4 else values
    return [numpy_helper.from_array(packed, stored), numpy_helper.from_array(scale, factor)], [
        helper.make_node("Cast", [stored], [unscaled], to=TensorProto.FLOAT),
        helper.make_node("Mul", [unscaled, factor], [name]),
    ]

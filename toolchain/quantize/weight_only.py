"""int8 convolution weights that a runtime expands once, when it loads the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


def expand_at_load(model: ModelProto) -> ModelProto:
    """Return the model (changed in place) with each Conv's float weight as int8, Cast and Mul by a scale per channel.

    Cast and Mul of constants are folded by every graph optimizer when the session starts, so an inference costs
    what the float file costs, in a quarter of the bytes. DequantizeLinear would run again in each inference:
    onnxruntime keeps it for QDQ fusion. Symmetric: scale = max|w| / 127 of each output channel.
    """
    from onnx import TensorProto, numpy_helper

    graph = model.graph
    convolved = {node.input[1] for node in graph.node if node.op_type in ("Conv", "ConvTranspose")}
    chosen = [t for t in graph.initializer if t.name in convolved and t.data_type == TensorProto.FLOAT]
    expansions: list[NodeProto] = []
    for tensor in chosen:
        weights = numpy_helper.to_array(tensor)
        scale = np.abs(weights).max(axis=tuple(range(1, weights.ndim)), keepdims=True) / np.float32(127)
        scale[scale == 0] = 1
        integers = np.clip(np.rint(weights / scale), -127, 127).astype(np.int8)
        graph.initializer.remove(tensor)
        expansions += _expansion(graph.initializer, tensor.name, integers, scale)
    computed = list(graph.node)
    del graph.node[:]
    graph.node.extend([*expansions, *computed])
    return model


def _expansion(initializers: Any, name: str, integers: NDArray[np.int8], scale: NDArray[np.float32]) -> list[NodeProto]:
    from onnx import TensorProto, helper, numpy_helper

    stored, factor, unscaled = f"{name}_int8", f"{name}_scale", f"{name}_cast"
    initializers.extend([numpy_helper.from_array(integers, stored), numpy_helper.from_array(scale, factor)])
    return [
        helper.make_node("Cast", [stored], [unscaled], to=TensorProto.FLOAT),
        helper.make_node("Mul", [unscaled, factor], [name]),
    ]

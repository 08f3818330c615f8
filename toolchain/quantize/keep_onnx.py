"""Layers of an ONNX graph that stay float while the rest is quantized."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from toolchain.formats.graph import chosen
from toolchain.formats.onnx.layers import onnx_graph
from toolchain.formats.onnx.write import write_model

if TYPE_CHECKING:
    from onnx import ModelProto


def named_layers(path: Path, keep: Collection[str], file: str) -> dict[str, str]:
    """Give the nodes of layers that are kept names of their own in the file, and return weight -> node.

    Raises UsageProblem as `chosen` does.
    """
    import onnx

    if not keep:
        return {}
    model = onnx.load(path)
    found = {}
    for layer in chosen(onnx_graph(model), keep, file):
        node = model.graph.node[layer.node]
        node.name = found[layer.weights.name] = f"kept {layer.name}"
    write_model(model, path)
    return found


def keep_apart(model: ModelProto, kept: dict[str, str]) -> ModelProto:
    """Return the QDQ model (changed in place) with a LeakyRelu right behind each layer that is kept.

    onnxruntime rounds the float weights of a Conv or Gemm itself when it stands between DequantizeLinear and
    QuantizeLinear (weight_bias_quantization.cc), past a Relu or Reshape too, which would undo what was kept. A
    LeakyRelu, of slope 0 where a Relu was and of slope 1 elsewhere, changes no number, is fused into the layer's
    kernel, and stops that.
    """
    from onnx import helper

    graph = model.graph
    outputs = {one.name for one in graph.output}
    for node in [one for one in graph.node if one.name in kept.values() and one.output[0] not in outputs]:
        after = [one for one in graph.node if node.output[0] in one.input]
        if [one.op_type for one in after] == ["Relu"]:
            after[0].op_type = "LeakyRelu"
            after[0].attribute.append(helper.make_attribute("alpha", 0.0))
            continue
        tensor = node.output[0]
        node.output[0] = f"{tensor}_apart"
        same = helper.make_node("LeakyRelu", [node.output[0]], [tensor], alpha=1.0)
        graph.node.insert(list(graph.node).index(node) + 1, same)
    return model

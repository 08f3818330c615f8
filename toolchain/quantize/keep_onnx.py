"""Layers of an ONNX graph that stay float while the rest is quantized."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from targets.onnxruntime.protobuf import without_weights
from toolchain.formats.graph import chosen
from toolchain.formats.onnx.edit import node as new_node
from toolchain.formats.onnx.edit import rewrite, substitute
from toolchain.formats.onnx.layers import onnx_graph

if TYPE_CHECKING:
    import onnx_ir as ir


def named_layers(path: Path, keep: Collection[str], file: str) -> dict[str, str]:
    """Give the nodes of layers that are kept names of their own in the file, and return weight -> node.

    Raises UsageProblem as `chosen` does.
    """
    if not keep:
        return {}
    layers = chosen(onnx_graph(without_weights(path)), keep, file)
    names = {layer.node: f"kept {layer.name}" for layer in layers}

    def name_kept_layers(model: ir.Model) -> bool:
        for position, node in enumerate(model.graph):
            node.name = names.get(position, node.name)
        return True

    rewrite(path, name_kept_layers)
    return {layer.weights.name: names[layer.node] for layer in layers}


def keep_apart(model: ir.Model, kept: dict[str, str]) -> bool:
    """Put a LeakyRelu right behind each layer of a QDQ model that is kept; kept: weight -> node.

    onnxruntime rounds the float weights of a Conv or Gemm itself when it stands between DequantizeLinear and
    QuantizeLinear (weight_bias_quantization.cc), past a Relu or Reshape too, which would undo what was kept. A
    LeakyRelu, of slope 0 where a Relu was and of slope 1 elsewhere, changes no number, is fused into the layer's
    kernel, and stops that.
    """
    graph = model.graph
    layers = [node for node in graph if node.name in kept.values() and not node.outputs[0].is_graph_output()]
    for layer in layers:
        output = layer.outputs[0]
        readers = output.consumers()
        if [reader.op_type for reader in readers] == ["Relu"]:
            substitute(readers[0], [new_node("LeakyRelu", [output], [""], alpha=0.0)])
            continue
        same = new_node("LeakyRelu", [output], [str(output.name)], alpha=1.0)
        output.name = f"{output.name}_apart"
        output.replace_all_uses_with(same.outputs[0])
        same.replace_input_with(0, output)
        graph.insert_after(layer, same)
    return bool(layers)

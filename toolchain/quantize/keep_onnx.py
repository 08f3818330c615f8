"""What stays float of an ONNX graph while the rest is quantized: layers that the user names, and masked operators.

Operators whose values a mask of minus infinity leaves no integers for stay float up to their softmax, as in TFLite
(`toolchain.quantize.unsuited_tflite`): the range of a masked tensor has room for the mask alone.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from targets.onnxruntime.protobuf import without_weights
from toolchain.checkpoint.onnx_checks import MASK_VIEWS, MASKS
from toolchain.formats.graph import chosen
from toolchain.formats.onnx.edit import constant, read, rewrite, substitute
from toolchain.formats.onnx.edit import node as new_node
from toolchain.formats.onnx.layers import onnx_graph
from toolchain.quantize.onnx_layers import is_float_constant, name_of

if TYPE_CHECKING:
    import onnx_ir as ir

ENDS = ("MaxPool", "Softmax")
"""Operators whose result ignores a masked value."""
MASKED = -1e3
"""A constant of this or less is a mask: its exp vanishes beside any value."""


def masked(model: ir.Model) -> list[ir.Node]:
    """Return each end whose input is masked, and the operators from its masks to it."""
    graph = model.graph
    masks = {value for value in graph.initializers.values() if _hides(value)}
    chains: dict[ir.Value | None, frozenset[ir.Node]] = {}
    nodes: set[ir.Node] = set()
    for node in graph:
        chain: frozenset[ir.Node] = frozenset().union(*(chains.get(value, ()) for value in node.inputs))
        if node.op_type in ENDS and chain:
            nodes |= {*chain, node}
        elif (node.op_type in MASKS and masks & set(node.inputs)) or (node.op_type in (*MASKS, *MASK_VIEWS) and chain):
            chains[node.outputs[0]] = chain | {node}
    return [node for node in graph if node in nodes]


def name_masked(path: Path) -> list[str]:
    """Give the nodes that are `masked` unique names in the file, and return the names."""
    names: list[str] = []

    def give_names(model: ir.Model) -> bool:
        for number, node in enumerate(masked(model)):
            node.name = f"masked {number}"
            names.append(node.name)
        return bool(names)

    if _may_be_masked(path):
        rewrite(path, give_names)
    return names


def masked_tensors(path: Path) -> set[str]:
    """Return the tensors that hold masked values, up to the softmax or maximum that takes the masks out."""
    if not _may_be_masked(path):
        return set()
    return {name_of(value) for node in masked(read(path)) if node.op_type not in ENDS for value in node.outputs}


def _may_be_masked(path: Path) -> bool:
    """Return whether the operators allow a mask at all; reading the weights of a large model takes long."""
    kinds = {node.op_type for node in without_weights(path).graph.node}
    return bool(kinds & {"Softmax", "Pad"} and kinds & {*MASKS})


def _hides(value: ir.Value) -> bool:
    numbers = constant(value) if is_float_constant(value) else None
    return numbers is not None and bool(numbers.min(initial=0) <= MASKED)


def name_kept_layers(path: Path, keep: Collection[str], file: str) -> dict[str, str]:
    """Give the nodes of the layers in `keep` unique names in the file, and return weight -> node name.

    Raises UsageProblem as `chosen` does.
    """
    if not keep:
        return {}
    layers = chosen(onnx_graph(without_weights(path)), keep, file)
    names = {layer.node: f"kept {layer.name}" for layer in layers}

    def give_names(model: ir.Model) -> bool:
        for position, node in enumerate(model.graph):
            node.name = names.get(position, node.name)
        return True

    rewrite(path, give_names)
    return {layer.weights.name: names[layer.node] for layer in layers}


def keep_apart(model: ir.Model, kept: dict[str, str]) -> bool:
    """Put a LeakyRelu right behind each layer of a QDQ model that stays float; kept: weight -> node name.

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

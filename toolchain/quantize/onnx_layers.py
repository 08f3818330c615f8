"""The layers of an ONNX graph that have weights to quantize, and what stays in float while the rest is quantized.

In float stay the layers that the user names, and the operators between a mask of minus infinity and its softmax, as in
TFLite (`toolchain.quantize.tflite_graph`): a range that includes the mask has no precision for anything else.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from targets.onnxruntime.onnx_file import without_weights
from toolchain.checkpoint.onnx_normal import MASK_VIEWS, MASKS
from toolchain.formats.graph import layers_to_keep
from toolchain.formats.onnx.edit import constant, substitute
from toolchain.formats.onnx.edit import node as new_node
from toolchain.formats.onnx.file import read, rewrite
from toolchain.formats.onnx.layers import onnx_graph

if TYPE_CHECKING:
    import onnx_ir as ir

KINDS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
RECURRENT = ("GRU", "LSTM", "RNN")
"""Their kernels take only float weights, so every scheme expands theirs when the file is loaded."""
ENDS = ("MaxPool", "Softmax")
"""Operators whose result ignores a masked value."""
MASKED = -1e3
"""A constant of this or less is a mask: its exp is negligible beside that of any value."""


def weighted(model: ir.Model) -> dict[str, ir.Node]:
    """Return the name of each constant float weight -> the (first) layer that multiplies by it, in graph order."""
    layers: dict[str, ir.Node] = {}
    for node in model.graph:
        if node.op_type in KINDS and is_float_constant(node.inputs[1]):
            layers.setdefault(name_of(node.inputs[1]), node)
    return layers


def recurrent(model: ir.Model) -> dict[str, ir.Node]:
    """Return the same for the weights of recurrent layers: those of the input and of the previous state."""
    return {
        name_of(weight): node
        for node in model.graph
        if node.op_type in RECURRENT
        for weight in node.inputs[1:3]
        if is_float_constant(weight)
    }


def name_of(value: ir.Value | None) -> str:
    """Return a value's name, empty for an input that is left out."""
    return "" if value is None else value.name or ""


def producer(value: ir.Value | None, *kinds: str) -> ir.Node | None:
    """Return the node that computes a value if it is of one of these kinds, otherwise None."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type in kinds else None


def is_float_constant(value: ir.Value | None) -> bool:
    """Return whether a value is a float32 initializer."""
    import onnx_ir as ir

    tensor = None if value is None else value.const_value
    return value is not None and value.is_initializer() and tensor is not None and tensor.dtype == ir.DataType.FLOAT


def channel_axis(node: ir.Node, rank: int) -> int:
    """Return the axis of a layer's weight along which the output channels lie."""
    if node.op_type == "Conv":
        return 0
    if node.op_type in ("ConvTranspose", *RECURRENT):
        return 1
    return 0 if node.attributes.get_int("transB", 0) else rank - 1


def needs_8_bits(node: ir.Node, shape: Sequence[int]) -> bool:
    """Return whether 4 bits are too few for a layer's weights: its errors accumulate, or few products are summed."""
    return node.op_type in RECURRENT or of_one_channel(node, shape)


def of_one_channel(node: ir.Node, shape: Sequence[int]) -> bool:
    """Return whether each output channel of a convolution reads a single input channel (depthwise, or of an image)."""
    return node.op_type == "Conv" and shape[1] == 1


def name_kept_layers(path: Path, keep: Collection[str], file: str) -> dict[str, str]:
    """Give the nodes of the layers in `keep` unique names in the file, and return weight -> node name.

    Raises UsageProblem as `layers_to_keep` does; `file` is the name for its messages.
    """
    if not keep:
        return {}
    layers = layers_to_keep(onnx_graph(without_weights(path)), keep, file)
    names = {layer.node: f"kept {layer.name}" for layer in layers}

    def give_names(model: ir.Model) -> bool:
        for position, node in enumerate(model.graph):
            node.name = names.get(position, node.name)
        return True

    rewrite(path, give_names)
    return {layer.weights.name: names[layer.node] for layer in layers}


def keep_apart(model: ir.Model, kept_layers: dict[str, str]) -> bool:
    """Insert a LeakyRelu behind each layer of a QDQ model that stays in float. kept_layers: weight -> node name.

    onnxruntime quantizes the float weights of a Conv or Gemm itself when the layer stands between DequantizeLinear and
    QuantizeLinear (weight_bias_quantization.cc), even with a Relu or Reshape behind it. A LeakyRelu prevents that, is
    fused into the layer's kernel, and changes no number: its slope is 0 in place of a Relu and 1 elsewhere.
    """
    graph = model.graph
    layers = [node for node in graph if node.name in kept_layers.values() and not node.outputs[0].is_graph_output()]
    for layer in layers:
        output = layer.outputs[0]
        readers = output.consumers()
        if [reader.op_type for reader in readers] == ["Relu"]:
            substitute(readers[0], [new_node("LeakyRelu", [output], [""], alpha=0.0)])
            continue
        identity = new_node("LeakyRelu", [output], [str(output.name)], alpha=1.0)
        output.name = f"{output.name}_apart"
        output.replace_all_uses_with(identity.outputs[0])
        identity.replace_input_with(0, output)
        graph.insert_after(layer, identity)
    return bool(layers)


def masked(model: ir.Model) -> list[ir.Node]:
    """Return each softmax or maximum whose input is masked, and the operators between the masks and it."""
    graph = model.graph
    masks = {value for value in graph.initializers.values() if _is_mask(value)}
    chains: dict[ir.Value | None, frozenset[ir.Node]] = {}
    nodes: set[ir.Node] = set()
    for node in graph:
        chain: frozenset[ir.Node] = frozenset().union(*(chains.get(value, ()) for value in node.inputs))
        if node.op_type in ENDS and chain:
            nodes |= {*chain, node}
        elif (node.op_type in MASKS and masks & set(node.inputs)) or (node.op_type in (*MASKS, *MASK_VIEWS) and chain):
            chains[node.outputs[0]] = chain | {node}
    return [node for node in graph if node in nodes]


def _is_mask(value: ir.Value) -> bool:
    values = constant(value) if is_float_constant(value) else None
    return values is not None and bool(values.min(initial=0) <= MASKED)


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
    """Return the tensors that hold masked values, up to the softmax or maximum that ignores them."""
    if not _may_be_masked(path):
        return set()
    return {name_of(value) for node in masked(read(path)) if node.op_type not in ENDS for value in node.outputs}


def _may_be_masked(path: Path) -> bool:
    """Return whether the file has operators of a mask at all; reading the weights of a large model takes long."""
    kinds = {node.op_type for node in without_weights(path).graph.node}
    return bool(kinds & {"Softmax", "Pad"} and kinds & {*MASKS})

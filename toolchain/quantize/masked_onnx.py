"""Operators of an ONNX graph whose values a mask of minus infinity leaves no integers for, up to their softmax.

They stay float, as in TFLite (`toolchain.quantize.unsuited_tflite`): the range of a masked tensor has room for the mask
alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from targets.onnxruntime.protobuf import without_weights
from toolchain.checkpoint.onnx_files import MASK_VIEWS, MASKS
from toolchain.formats.onnx.write import write_model

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

ENDS = ("MaxPool", "Softmax")
"""Operators for which a masked value is none."""
MASKED = -1e3
"""A constant of this or less is a mask: its exp is nothing, beside whatever value."""


def masked(model: ModelProto) -> list[NodeProto]:
    """Return each end whose input is masked, and the operators from its masks to it."""
    graph = model.graph
    hiding = {tensor.name for tensor in graph.initializer if _hides(tensor)}
    chains: dict[str, frozenset[str]] = {}
    found = set[str]()
    for node in graph.node:
        chain = frozenset[str]().union(*(chains.get(name, ()) for name in node.input))
        if node.op_type in ENDS and chain:
            found |= {*chain, node.output[0]}
        elif (node.op_type in MASKS and hiding & set(node.input)) or (node.op_type in (*MASKS, *MASK_VIEWS) and chain):
            chains[node.output[0]] = chain | {node.output[0]}
    return [node for node in graph.node if node.output[0] in found]


def named_masks(path: Path) -> list[str]:
    """Give what is `masked` in the file names of its own, and return them."""
    import onnx

    if not _may_be_masked(without_weights(path)):
        return []
    model = onnx.load(path)
    names = []
    for number, node in enumerate(masked(model)):
        node.name = f"masked {number}"
        names.append(node.name)
    if names:
        write_model(model, path)
    return names


def masked_tensors(path: Path) -> set[str]:
    """Return the tensors that hold values and masks; none of an end."""
    import onnx

    if not _may_be_masked(without_weights(path)):
        return set()
    return {name for node in masked(onnx.load(path)) if node.op_type not in ENDS for name in node.output}


def _may_be_masked(model: ModelProto) -> bool:
    """Return whether it is worth reading the numbers, which are much for a large model."""
    kinds = {node.op_type for node in model.graph.node}
    return bool(kinds & {"Softmax", "Pad"} and kinds & {*MASKS})


def _hides(tensor: TensorProto) -> bool:
    from onnx import TensorProto, numpy_helper

    return tensor.data_type == TensorProto.FLOAT and bool(numpy_helper.to_array(tensor).min(initial=0) <= MASKED)

"""A module as torch.export's graph of operators, with batch norms folded into the layers before them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from toolchain.errors import StageError
from toolchain.model import FloatModel
from toolchain.noise import noise_to

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import GraphModule, Node

LAYERS = {"conv2d", "linear"}
"""Operators with a weight [out, in / groups, ...] as their second argument and a bias, or None, as their third."""


def folded_graph(model: FloatModel) -> GraphModule:
    """Return a copy of the model's graph in which each batch norm after a layer is part of that layer.

    Raises StageError when torch.export refuses the model.
    """
    import torch

    module = copy.deepcopy(model.torch_module("equalizing"))
    try:
        with noise_to() as log, torch.no_grad():
            batch = torch.export.Dim("batch")
            program = torch.export.export(module, (torch.zeros(2, 1, 28, 28),), dynamic_shapes=({0: batch},))
            graph: GraphModule = program.module()
            for node in [node for node in graph.graph.nodes if operator(node) == "batch_norm"]:
                _fold(graph, node)
    except (RuntimeError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise StageError(f"{model.name}: torch.export cannot follow it ({reason}); details are in {log}") from error
    _drop_unused(graph)
    return graph


def operator(node: Node) -> str:
    """Return an ATen operator's name without overload and the underscore of working in place; empty for other nodes."""
    packet = getattr(node.target, "overloadpacket", None)
    return str(packet.__name__).rstrip("_") if node.op == "call_function" and packet is not None else ""


def value(graph: GraphModule, node: Any) -> Tensor:
    """Return the parameter or buffer that a node stands for."""
    found: Any = graph
    for part in node.target.split("."):
        found = getattr(found, part)
    tensor: Tensor = found
    return tensor


def weight_and_bias(graph: GraphModule, layer: Node) -> tuple[Tensor, Tensor | None]:
    """Return a layer's weight, and its bias where it has one."""
    bias = layer.args[2] if len(layer.args) > 2 else None
    return value(graph, layer.args[1]), None if bias is None else value(graph, bias)


def sole(node: Node) -> bool:
    """Return whether a layer alone reads its weight and its bias."""
    return all(len(part.users) == 1 for part in node.args[1:3] if part is not None)  # type: ignore[union-attr]


def _fold(graph: GraphModule, norm: Any) -> None:
    import torch

    layer, *parts, training = norm.args[:6]
    if operator(layer) not in LAYERS or len(layer.users) > 1 or not sole(layer) or training:
        return
    gain, shift = (None if part is None else value(graph, part) for part in parts[:2])
    mean, variance = (value(graph, part) for part in parts[2:])
    scale = torch.rsqrt(variance + norm.args[7])
    scale = scale if gain is None else scale * gain
    weight, bias = weight_and_bias(graph, layer)
    moved = (-mean if bias is None else bias - mean) * scale
    moved = moved if shift is None else moved + shift
    weight.mul_(scale.reshape(-1, *[1] * (weight.dim() - 1)))
    if bias is None:
        _give_bias(graph, layer, moved)
    else:
        bias.copy_(moved)
    norm.replace_all_uses_with(layer)
    graph.graph.erase_node(norm)


def _give_bias(graph: GraphModule, layer: Any, bias: Tensor) -> None:
    from torch import nn

    owner, _, name = layer.args[1].target.rpartition(".")
    graph.get_submodule(owner).register_parameter(f"{name}_bias", nn.Parameter(bias))
    with graph.graph.inserting_before(layer):
        node = graph.graph.get_attr(f"{owner}.{name}_bias" if owner else f"{name}_bias")
    layer.args = (*layer.args[:2], node, *layer.args[3:])


def _drop_unused(graph: GraphModule) -> None:
    """Take out what belonged to folded batch norms."""
    graph.graph.eliminate_dead_code()
    used = {node.target for node in graph.graph.nodes if node.op == "get_attr"}
    for name, _ in [*graph.named_parameters(), *graph.named_buffers()]:
        if name not in used:
            owner, _, last = name.rpartition(".")
            delattr(graph.get_submodule(owner), last)
    graph.recompile()

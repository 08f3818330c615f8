"""Cross-layer range equalization (Nagel et al., "Data-Free Quantization", arXiv:1906.04721, section 4.1)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from toolchain.checkpoint.compiled import as_module
from toolchain.equalize.graph import LAYERS, folded_graph, operator, sole, weight_and_bias
from toolchain.errors import ParityError, StageError
from toolchain.export.parity import TOLERANCE, reference_images, reference_logits
from toolchain.model import FloatModel
from toolchain.steps import Equalize

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

_SEEN_THROUGH = {
    "relu",
    "leaky_relu",
    "dropout",
    "feature_dropout",
    "max_pool2d",
    "avg_pool2d",
    "adaptive_avg_pool2d",
    "flatten",
}
"""f(s x) = s f(x) for s > 0, channel by channel: what stands between two layers may be scaled through these."""
STILL = 1e-3
"""A sweep that scales nothing by more than this share is the last."""


@dataclass(frozen=True)
class Pair:
    """Two layers, the second of which alone reads what the first gives. groups: of the second."""

    first: Node
    second: Node
    groups: int


def equalize(model: FloatModel, step: Equalize) -> FloatModel:
    """Return a model that answers the same, with the channels of neighbouring layers brought to one scale.

    Batch norms are folded first. Of each channel i between two layers, both largest weights become the square root of
    their product. Layers with another activation than ReLU between them, or whose output something else reads too, are
    left alone, and the history says how many. Raises StageError when the model is not in torch or no two layers can be
    equalized, ParityError when the answers move by more than rounding.
    """
    import torch

    graph = folded_graph(model)
    pairs, left = _pairs(graph)
    if not pairs:
        raise StageError(f"{model.name}: no two layers can be equalized ({_words(left)}); press it without equalize")
    with torch.no_grad():
        for _ in range(step.sweeps):
            if max(_balanced(graph, pair) for pair in pairs) < STILL:
                break
    line = f"equalized {len(pairs)} pairs of layers, left {sum(left.values())} layers alone"
    line += f" ({_words(left)})" if left else ""
    changed = replace(model, module=as_module(graph).eval(), onnx=None, history=(*model.history, line))
    images = reference_images()
    worst = float(abs(reference_logits(changed, images) - reference_logits(model, images)).max())
    if not worst < TOLERANCE:
        raise ParityError(f"{model.name}: equalizing moved its logits by {worst:.2g}; press it without equalize")
    return changed


def _words(left: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in left.items()) or "it has fewer than two layers"


def _pairs(graph: GraphModule) -> tuple[list[Pair], Counter[str]]:
    """Return the pairs in execution order, and why other layers are followed by none; the last one has no follower."""
    pairs, left = [], Counter[str]()
    for layer in [node for node in graph.graph.nodes if operator(node) in LAYERS]:
        found = _follower(layer)
        if isinstance(found, str):
            left[found] += found != ""
            continue
        groups = int(_argument(found, 6, "groups", 1)) if operator(found) == "conv2d" else 1
        pairs.append(Pair(layer, found, groups))
    return pairs, +left


def _follower(layer: Node) -> Node | str:
    """Return the layer that alone reads this one's channels, or why there is none; an empty reason at the output."""
    node = layer
    if not sole(layer) or node.meta["val"].dim() != {"conv2d": 4, "linear": 2}[operator(layer)]:
        return "with shared weights or an unusual shape"
    while len(node.users) == 1:
        (after,) = node.users
        if after.op == "output":
            return ""
        if operator(after) in LAYERS:
            shaped = node.meta["val"].dim() == {"conv2d": 4, "linear": 2}[operator(after)]
            return after if after.args[0] is node and shaped and sole(after) else "before a layer that shares weights"
        if operator(after) not in _SEEN_THROUGH or (operator(after) == "flatten" and after.args[1:2] != (1,)):
            return f"before {operator(after) or after.name}"
        node = after
    return "whose output is read more than once"


def _argument(node: Node, place: int, name: str, default: Any) -> Any:
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def _balanced(graph: GraphModule, pair: Pair) -> float:
    """Scale one pair in place; return by how much its channel that moved most was scaled, as |log s|."""
    import torch

    weight, bias = weight_and_bias(graph, pair.first)
    following, _ = weight_and_bias(graph, pair.second)
    # [groups, out, in, taps]: an input channel is a place in the first and third; behind a flatten it has several taps.
    channels = weight.shape[0]
    inputs = following.reshape(pair.groups, following.shape[0] // pair.groups, channels // pair.groups, -1)
    ours = weight.abs().flatten(1).amax(dim=1)
    theirs = inputs.abs().amax(dim=(1, 3)).flatten()
    alive = (ours > 0) & (theirs > 0)
    scale = torch.where(alive, (ours / theirs.where(alive, 1)).sqrt(), 1)
    weight.div_(scale.reshape(-1, *[1] * (weight.dim() - 1)))
    if bias is not None:
        bias.div_(scale)
    following.copy_((inputs * scale.reshape(pair.groups, 1, -1, 1)).reshape(following.shape))
    return float(scale.log().abs().max())

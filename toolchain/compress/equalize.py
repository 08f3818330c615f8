"""Cross-layer range equalization (Nagel et al., "Data-Free Quantization", arXiv:1906.04721, section 4.1)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from toolchain.checkpoint.float_model import FloatModel
from toolchain.compress.fold import folded
from toolchain.compress.step import ModelStep, StepContext
from toolchain.core.converter_log import output_to_log
from toolchain.core.errors import ParityError, StageError
from toolchain.export.parity import allowed_difference, reference_images, reference_logits

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.fx import Node

_RANK = {"conv2d": 4, "linear": 2}
"""Layers, and the rank of what they give and take: their channels stand at axis 1."""
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


class Equalize(ModelStep):
    """Cross-layer equalization (Nagel, arXiv:1906.04721): what a layer's channel shrinks by, the next one grows by.

    What the model computes stays; quantized per tensor it loses less, since no channel is much smaller than another.
    """

    kind: Literal["equalize"] = "equalize"
    sweeps: int = Field(
        default=20, ge=1, le=1000, description="at most so many times over all pairs; it ends once nothing moves"
    )

    @property
    def needs_training(self) -> bool:
        """Return False: weights alone say how to scale."""
        return False

    def apply(self, model: FloatModel, context: StepContext) -> FloatModel:  # noqa: ARG002 (of every step)
        """Return the equalized model."""
        return equalize(model, self)


@dataclass(frozen=True, eq=False)
class Pair:
    """Two layers, the second of which alone reads what the first gives. groups: of the second."""

    weight: Tensor
    bias: Tensor | None
    following: Tensor
    groups: int


def equalize(model: FloatModel, step: Equalize) -> FloatModel:
    """Return a model that answers the same, with the channels of neighbouring layers brought to one scale.

    Batch norms are folded first. Of each channel between two layers, both largest weights become the square root of
    their product. Layers with another activation than ReLU between them, or whose output something else reads too, are
    left alone, and the history says how many. Raises StageError when the model is not in torch, cannot be traced or has
    no two layers that can be equalized, ParityError when its answers move by more than rounding.
    """
    import torch

    module = folded(model, "equalization")
    pairs, left = _pairs(module, model.name)
    words = ", ".join(f"{count} {reason}" for reason, count in left.items())
    if not pairs:
        reason = words or "it has fewer than two layers with weights"
        raise StageError(f"{model.name}: no two layers can be equalized ({reason}); leave equalize out")
    with torch.no_grad():
        for _ in range(step.sweeps):
            if max([_balance(pair) for pair in pairs]) < STILL:
                break
    line = f"equalized {len(pairs)} pairs of layers" + (f", left alone: {words}" if words else "")
    changed = replace(model.with_module(module), history=(*model.history, line))
    images = reference_images()
    expected = reference_logits(model, images)
    worst = float(abs(reference_logits(changed, images) - expected).max())
    if not worst < allowed_difference(expected):
        raise ParityError(f"{model.name}: equalizing moved its logits by {worst:.2g}; leave equalize out")
    return changed


def _pairs(module: nn.Module, name: str) -> tuple[list[Pair], Counter[str]]:
    """Return the pairs in execution order, and how many layers are followed by none for which reason."""
    import torch

    try:
        with output_to_log() as log:
            batch = torch.export.Dim("batch")
            program = torch.export.export(module, (torch.zeros(2, 1, 28, 28),), dynamic_shapes=({0: batch},))
    except (RuntimeError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise StageError(f"{name}: torch.export cannot follow it ({reason}); details are in {log}") from error
    names = program.graph_signature.inputs_to_parameters
    pairs, left = [], Counter[str]()
    for layer in [node for node in program.graph.nodes if _operator(node) in _RANK]:
        after = _follower(layer, names)
        if isinstance(after, str):
            left[after] += bool(after)
            continue
        weight, bias = (module.get_parameter(names[node.name]) if node else None for node in _constants(layer))
        following = module.get_parameter(names[_constants(after)[0].name])
        groups = _argument(after, 6, "groups", 1) if _operator(after) == "conv2d" else 1
        assert weight is not None, "a layer has a weight"
        pairs.append(Pair(weight, bias, following, groups))
    return pairs, +left


def _follower(layer: Node, names: dict[str, str]) -> Node | str:
    """Return the layer that alone reads this one's channels, or why there is none; empty for the last layer."""
    if not _own(layer, names) or layer.meta["val"].dim() != _RANK[_operator(layer)]:
        return "with shared weights or an unusual shape"
    node = layer
    while len(node.users) == 1:
        (after,) = node.users
        if after.op == "output":
            return ""
        kind = _operator(after)
        if kind in _RANK:
            fits = node.meta["val"].dim() == _RANK[kind] and after.args[0] is node and _own(after, names)
            return after if fits else "before a layer with shared weights or an unusual shape"
        if kind not in _SEEN_THROUGH or (kind == "flatten" and after.args[1:] not in ((1,), (1, -1))):
            return f"before {kind or after.name}"
        node = after
    return "whose output is read more than once"


def _operator(node: Node) -> str:
    """Return an ATen operator's name without overload and the underscore of working in place; empty for other nodes."""
    packet = getattr(node.target, "overloadpacket", None)
    return str(packet.__name__).rstrip("_") if packet is not None else ""


def _constants(layer: Node) -> list[Any]:
    """Return the nodes of a layer's weight and bias, None for a bias that it does not have."""
    return [_argument(layer, 1, "weight", None), _argument(layer, 2, "bias", None)]


def _argument(node: Node, place: int, name: str, default: Any) -> Any:
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def _own(layer: Node, names: dict[str, str]) -> bool:
    """Return whether weight and bias are parameters that this layer alone reads."""
    return all(node.name in names and len(node.users) == 1 for node in _constants(layer) if node is not None)


def _balance(pair: Pair) -> float:
    """Scale one pair in place; return by how much the channel that moved most was scaled, as |log s|."""
    import torch

    channels = len(pair.weight)
    # [groups, out, in, taps]: input channels count through the first and third; behind a flatten each has several taps.
    inputs = pair.following.reshape(pair.groups, -1, channels // pair.groups, _taps(pair))
    ours = pair.weight.abs().flatten(1).amax(dim=1)
    theirs = inputs.abs().amax(dim=(1, 3)).flatten()
    alive = (ours > 0) & (theirs > 0)
    scale = torch.where(alive, (ours / theirs.where(alive, 1)).sqrt(), 1)
    pair.weight.div_(scale.reshape(-1, *[1] * (pair.weight.dim() - 1)))
    if pair.bias is not None:
        pair.bias.div_(scale)
    pair.following.copy_((inputs * scale.reshape(pair.groups, 1, -1, 1)).reshape(pair.following.shape))
    return float(scale.log().abs().max())


def _taps(pair: Pair) -> int:
    """Return how many weights of one output channel meet one input channel."""
    return pair.following[0].numel() * pair.groups // len(pair.weight)

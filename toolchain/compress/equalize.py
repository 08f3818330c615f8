"""Cross-layer range equalization (Nagel et al., "Data-Free Quantization", arXiv:1906.04721, section 4.1).

Before it, and before quantization-aware training, batch norms are folded (`folded`), as every exporter does in the end.
"""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from targets.errors import first_line
from toolchain.compress import ModelStep, StepContext
from toolchain.core.errors import ParityError, StageError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.fx import Node

    from toolchain.checkpoint.float_model import FloatModel

_RANK = {"conv2d": 4, "linear": 2}
"""Kinds of layers, and the rank of their inputs and outputs, whose channels are axis 1."""
_SCALABLE = {
    "relu",
    "leaky_relu",
    "dropout",
    "feature_dropout",
    "max_pool2d",
    "avg_pool2d",
    "adaptive_avg_pool2d",
    "flatten",
}
"""Operators with f(s x) = s f(x) for s > 0 in each channel; only these may stand between the layers of a pair."""
CONVERGED = 1e-3
"""The sweeps end when none scales a channel by more than this share."""


class Equalize(ModelStep):
    """Cross-layer equalization (Nagel, arXiv:1906.04721): a layer's channel is scaled down, the next layer's input up.

    The model computes the same; quantized per tensor it loses less, since no channel is much smaller than another.
    """

    kind: Literal["equalize"] = "equalize"
    sweeps: int = Field(
        default=20, ge=1, le=1000, description="most passes over all pairs; it stops when nothing changes"
    )

    @property
    def needs_training(self) -> bool:
        """Return False: the scales follow from the weights alone."""
        return False

    def apply(self, model: FloatModel, context: StepContext) -> FloatModel:  # noqa: ARG002 (of every step)
        """Return the equalized model."""
        return equalize(model, self)


def folded(model: FloatModel, stage: str) -> nn.Module:
    """Return a copy of the model's module, in eval mode, with batch norms folded into the convolutions before them.

    The norms become identities, and the outputs stay the same except for rounding. Raises StageError, naming `stage`,
    when the model is not in torch or torch.fx cannot trace it.
    """
    from torch import fx, nn
    from torch.nn.utils import fuse_conv_bn_eval

    module = copy.deepcopy(model.torch_module(stage)).eval()
    try:
        graph = fx.symbolic_trace(module).graph
    except (fx.proxy.TraceError, RuntimeError, TypeError, AttributeError) as error:
        raise StageError(
            f"{model.name}: torch.fx cannot trace it for {stage} ({first_line(error)}); leave that step out"
        ) from error
    calls = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    for node in graph.nodes:
        before = node.args[0] if node.args else None
        if node.op != "call_module" or not isinstance(before, fx.Node) or before.op != "call_module":
            continue
        norm, convolution = (module.get_submodule(str(each.target)) for each in (node, before))
        unshared = len(before.users) == 1 and all(calls.count(str(each.target)) == 1 for each in (node, before))
        if unshared and isinstance(norm, nn.BatchNorm2d) and isinstance(convolution, nn.Conv2d):
            module.set_submodule(str(before.target), fuse_conv_bn_eval(convolution, norm))
            module.set_submodule(str(node.target), nn.Identity())
    return module


@dataclass(frozen=True, eq=False)
class Pair:
    """The parameters of a layer, and `following`, the weight of the only reader of its output, which has `groups`."""

    weight: Tensor
    bias: Tensor | None
    following: Tensor
    groups: int


def equalize(model: FloatModel, step: Equalize) -> FloatModel:
    """Return a model with the same answers, in which neighbouring layers have equally large weights in each channel.

    Batch norms are folded first. The largest weights of a channel in the two layers both become the square root of
    their product. Layers with an activation other than ReLU between them, or with more than one reader, are left as
    they are, and the history counts them. Raises StageError when the model is not in torch, cannot be traced or has no
    two layers that can be equalized, ParityError when its answers change by more than rounding.
    """
    import torch

    from toolchain.export import allowed_difference, reference_images, reference_logits

    module = folded(model, "equalization")
    pairs, unpaired = _pairs(module, model.name)
    left_alone = ", ".join(f"{count} {reason}" for reason, count in unpaired.items())
    if not pairs:
        reason = left_alone or "it has fewer than two layers with weights"
        raise StageError(f"{model.name}: no two layers can be equalized ({reason}); leave equalize out")
    with torch.no_grad():
        for _ in range(step.sweeps):
            if max([_balance(pair) for pair in pairs]) < CONVERGED:
                break
    line = f"equalized {len(pairs)} pairs of layers" + (f", left alone: {left_alone}" if left_alone else "")
    changed = replace(model.with_module(module), history=(*model.history, line))
    images = reference_images()
    expected = reference_logits(model, images)
    worst = float(abs(reference_logits(changed, images) - expected).max())
    if not worst < allowed_difference(expected):
        raise ParityError(f"{model.name}: equalizing changed its logits by {worst:.2g}; leave equalize out")
    return changed


def _pairs(module: nn.Module, name: str) -> tuple[list[Pair], Counter[str]]:
    """Return the pairs in execution order, and the number of layers without a partner by reason."""
    import torch

    from toolchain.core.converter_log import output_to_log

    try:
        with output_to_log() as log:
            batch = torch.export.Dim("batch")
            program = torch.export.export(module, (torch.zeros(2, 1, 28, 28),), dynamic_shapes=({0: batch},))
    except (RuntimeError, TypeError, ValueError) as error:
        raise StageError(f"{name}: torch.export cannot trace it ({first_line(error)}); details are in {log}") from error
    names = program.graph_signature.inputs_to_parameters
    pairs, unpaired = [], Counter[str]()
    for layer in [node for node in program.graph.nodes if _operator(node) in _RANK]:
        follower = _follower(layer, names)
        if isinstance(follower, str):
            unpaired[follower] += bool(follower)
            continue
        weight, bias = (module.get_parameter(names[node.name]) if node else None for node in _constants(layer))
        following = module.get_parameter(names[_constants(follower)[0].name])
        groups = _argument(follower, 6, "groups", 1) if _operator(follower) == "conv2d" else 1
        assert weight is not None, "a layer has a weight"
        pairs.append(Pair(weight, bias, following, groups))
    return pairs, +unpaired


def _follower(layer: Node, names: dict[str, str]) -> Node | str:
    """Return the only layer that reads this one's channels, or the reason why none does; empty for the last layer."""
    if not _has_unshared_parameters(layer, names) or layer.meta["val"].dim() != _RANK[_operator(layer)]:
        return "with shared weights or an unusual shape"
    node = layer
    while len(node.users) == 1:
        (reader,) = node.users
        if reader.op == "output":
            return ""
        kind = _operator(reader)
        if kind in _RANK:
            usual_shape = node.meta["val"].dim() == _RANK[kind] and reader.args[0] is node
            fits = usual_shape and _has_unshared_parameters(reader, names)
            return reader if fits else "before a layer with shared weights or an unusual shape"
        if kind not in _SCALABLE or (kind == "flatten" and reader.args[1:] not in ((1,), (1, -1))):
            return f"before {kind or reader.name}"
        node = reader
    return "whose output is read more than once"


def _operator(node: Node) -> str:
    """Return an ATen operator's name without its overload and in-place underscore; empty for other nodes."""
    packet = getattr(node.target, "overloadpacket", None)
    return str(packet.__name__).rstrip("_") if packet is not None else ""


def _constants(layer: Node) -> list[Any]:
    """Return the nodes of a layer's weight and bias; None for a missing bias."""
    return [_argument(layer, 1, "weight", None), _argument(layer, 2, "bias", None)]


def _argument(node: Node, index: int, name: str, default: Any) -> Any:
    return node.args[index] if len(node.args) > index else node.kwargs.get(name, default)


def _has_unshared_parameters(layer: Node, names: dict[str, str]) -> bool:
    """Return whether weight and bias are parameters that no other layer reads."""
    return all(node.name in names and len(node.users) == 1 for node in _constants(layer) if node is not None)


def _balance(pair: Pair) -> float:
    """Scale one pair in place; return the largest |log s| of its scales s."""
    import torch

    channels = len(pair.weight)
    taps = pair.following[0].numel() * pair.groups // channels
    # [groups, out, in, taps]: input channels run over the first and third axis; after a flatten each has several taps.
    inputs = pair.following.reshape(pair.groups, -1, channels // pair.groups, taps)
    largest_out = pair.weight.abs().flatten(1).amax(dim=1)
    largest_in = inputs.abs().amax(dim=(1, 3)).flatten()
    alive = (largest_out > 0) & (largest_in > 0)
    scale = torch.where(alive, (largest_out / largest_in.where(alive, 1)).sqrt(), 1)
    pair.weight.div_(scale.reshape(-1, *[1] * (pair.weight.dim() - 1)))
    if pair.bias is not None:
        pair.bias.div_(scale)
    pair.following.copy_((inputs * scale.reshape(pair.groups, 1, -1, 1)).reshape(pair.following.shape))
    return float(scale.log().abs().max())

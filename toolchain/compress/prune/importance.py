"""How important each channel is: what its group's weights weigh, or what the training loss would lose with them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.dataset import Dataset
from targets.preprocess import Preprocess
from toolchain.compress.prune.graph import ChannelGraph, Channels
from toolchain.compress.prune.settings import Importance
from toolchain.training.settings import preset

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

IMAGES = 256
"""How many images of the train split gradients are taken from."""


def scores(
    graph: ChannelGraph,
    layers: Collection[str],
    kind: Importance,
    data: Dataset,
    preprocess: Preprocess,
    *,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Return the importance of the channels of `layers`, the mean of a layer being 1: one number a place in a block.

    l1, l2: norms of the group's weights (Li, arXiv:1608.08710). bn-scale: batch norms' factors (Liu, arXiv:1708.06519);
    layers without one are left out. taylor: weight times gradient (Molchanov, arXiv:1906.10771). hessian: squared
    weight times squared gradient of single images, the diagonal of Optimal Brain Damage (LeCun, 1989). Gradients are
    the training loss's on 256 seeded images of `data`.
    """
    if kind in ("taylor", "hessian"):
        _fill_gradients(graph.module, data, preprocess, seed, single=kind == "hessian")
    estimate = _estimator(kind)
    found = {layer: estimate(own.group) for layer, own in graph.channels.items() if layer in layers}
    return {layer: _a_block(values, graph.channels[layer]) for layer, values in found.items() if values is not None}


def _a_block(values: Tensor, own: Channels) -> list[float]:
    together = values.detach().reshape(own.blocks, -1).mean(0)
    # All zero, as where no gradient comes through, is 0 divided by 0 once the mean is made 1.
    return [float(value) for value in together.nan_to_num(0.0)]


def _estimator(kind: Importance) -> Any:
    from torch import nn
    from torch_pruning.pruner import importance

    # The library's defaults for these are shared mutable lists.
    weighed = [nn.modules.conv._ConvNd, nn.Linear, nn.modules.batchnorm._BatchNorm, nn.LayerNorm]
    match kind:
        case "l1" | "l2":
            return importance.GroupMagnitudeImportance(p=int(kind[1]), target_types=weighed)
        case "bn-scale":
            return importance.BNScaleImportance()
        case "taylor":
            return importance.GroupTaylorImportance(target_types=weighed)
    # Its own accumulate_grad keeps the last image alone (1.6.1); without it, it takes the gradients as they stand.
    return importance.GroupHessianImportance(target_types=weighed)


def _fill_gradients(module: nn.Module, data: Dataset, preprocess: Preprocess, seed: int, *, single: bool) -> None:
    """Leave in each parameter's `grad` the mean gradient of the loss, or of single images the mean of its square."""
    import torch
    from torch.nn.functional import cross_entropy

    smoothing = preset("fine-tune").label_smoothing
    parameters = list(module.parameters())
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    batches = list(_batches(data, preprocess, seed, 1 if single else 64))
    for pixels, labels in batches:
        loss = cross_entropy(module(pixels), labels, label_smoothing=smoothing)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        for place, gradient in enumerate(gradients):
            if gradient is not None:
                sums[place] += gradient.square() if single else gradient
    for parameter, total in zip(parameters, sums, strict=True):
        parameter.grad = total / len(batches)


def _batches(
    data: Dataset, preprocess: Preprocess, seed: int, size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    import torch

    chosen = np.random.default_rng(seed).permutation(len(data))[:IMAGES]
    images, labels = data.images[chosen], data.labels[chosen] + preprocess.label_offset
    for part in np.array_split(np.arange(len(chosen)), -(-len(chosen) // size)):
        yield torch.from_numpy(preprocess.apply(images[part])), torch.from_numpy(labels[part]).long()

"""Importance of channels: the norm of their group's weights, or the effect of removing them on the training loss."""

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
"""Number of images of the train split for the gradients."""


def scores(
    graph: ChannelGraph,
    layers: Collection[str],
    kind: Importance,
    data: Dataset,
    preprocess: Preprocess,
    *,
    seed: int,
) -> dict[str, list[float]]:
    """Return the importance of the channels of `layers`, one number per index in a block; the mean of a layer is 1.

    l1, l2: norms of the group's weights (Li, arXiv:1608.08710). bn-scale: batch norms' factors (Liu, arXiv:1708.06519);
    layers without one are left out. taylor: weight times gradient (Molchanov, arXiv:1906.10771). hessian: squared
    weight times squared gradient of single images, the diagonal of Optimal Brain Damage (LeCun, 1989). Gradients are
    the training loss's on 256 seeded images of `data`.
    """
    if kind in ("taylor", "hessian"):
        _fill_gradients(graph.module, data, preprocess, seed, single=kind == "hessian")
    estimate = _estimator(kind)
    estimates = {layer: estimate(graph.channels[layer].group) for layer in graph.channels if layer in layers}
    return {
        layer: _block_mean(values, graph.channels[layer]) for layer, values in estimates.items() if values is not None
    }


def _block_mean(values: Tensor, channels: Channels) -> list[float]:
    mean = values.detach().reshape(channels.blocks, -1).mean(0)
    # Normalised to a mean of 1, values that are all zero, as without any gradient, became NaN.
    return [float(value) for value in mean.nan_to_num(0.0)]


def _estimator(kind: Importance) -> Any:
    from torch import nn
    from torch_pruning.pruner import importance

    # The library's defaults for these are shared mutable lists.
    weighted = [nn.modules.conv._ConvNd, nn.Linear, nn.modules.batchnorm._BatchNorm, nn.LayerNorm]
    match kind:
        case "l1" | "l2":
            return importance.GroupMagnitudeImportance(p=int(kind[1]), target_types=weighted)
        case "bn-scale":
            return importance.BNScaleImportance()
        case "taylor":
            return importance.GroupTaylorImportance(target_types=weighted)
    # Its own accumulate_grad keeps only the last image (1.6.1); without it, it uses the gradients as they are.
    return importance.GroupHessianImportance(target_types=weighted)


def _fill_gradients(module: nn.Module, data: Dataset, preprocess: Preprocess, seed: int, *, single: bool) -> None:
    """Set each parameter's `grad` to the mean gradient of the loss, or with `single` to the mean square over images."""
    import torch
    from torch.nn.functional import cross_entropy

    smoothing = preset("fine-tune").label_smoothing
    parameters = list(module.parameters())
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    batches = list(_batches(data, preprocess, seed, 1 if single else 64))
    for pixels, labels in batches:
        loss = cross_entropy(module(pixels), labels, label_smoothing=smoothing)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        for index, gradient in enumerate(gradients):
            if gradient is not None:
                sums[index] += gradient.square() if single else gradient
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

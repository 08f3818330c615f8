"""Structured pruning with torch-pruning's dependency graph (DepGraph, arXiv:2301.12900)."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from calibration.dataset import Dataset
from toolchain.errors import StageError
from toolchain.fit import fit
from toolchain.model import FloatModel
from toolchain.progress import Progress, silent
from toolchain.steps import Prune
from toolchain.train_settings import preset, preset_for

if TYPE_CHECKING:
    from torch import nn


def prune(
    model: FloatModel, step: Prune, data: Dataset, *, seed: int = 0, threads: int = 0, progress: Progress = silent
) -> FloatModel:
    """Return a model with `step.ratio` of every layer's channels gone, fine-tuned on `data` (a train split).

    Channels go by the L2 norm of their whole dependency group; the layer that gives the logits keeps its width.
    Raises StageError when the model is not in torch or its graph cannot be followed.
    """
    module = copy.deepcopy(model.torch_module("pruning"))
    before = _parameters(module)
    _remove_channels(module, step, model.name)
    if step.epochs:
        # Few images need small batches, or a handful of steps is all they give.
        settings = preset("fine-tune").changed(epochs=step.epochs, batch=preset_for(len(data)).batch)
        module = fit(module, data, model.preprocess, settings, seed=seed, threads=threads, progress=progress)
    line = (
        f"pruned {step.ratio:.0%} of the channels: {before:,} to {_parameters(module):,} parameters, "
        f"{step.epochs} epochs of fine-tuning on {data.origin}, seed {seed}"
    )
    return replace(model, module=module.eval(), onnx=None, history=(*model.history, line))


def _remove_channels(module: nn.Module, step: Prune, name: str) -> None:
    import torch
    import torch_pruning

    sample = torch.zeros(2, 1, 28, 28)
    try:
        # eval: tracing needs gradients, but must not move the batch norms' statistics
        module.eval().requires_grad_(True)
        columns = module(sample).shape
        torch_pruning.pruner.BasePruner(
            module,
            sample,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=step.ratio,
            round_to=step.round_to,
            ignored_layers=[_last_layer(module, sample)],
            # The library's defaults for these are shared mutable dicts.
            in_channel_groups={},
            out_channel_groups={},
            num_heads={},
            channel_groups={},
        ).step()
        pruned = module(sample).shape
    except (RuntimeError, ValueError, TypeError, AttributeError, KeyError, NotImplementedError) as error:
        raise StageError(
            f"{name}: torch-pruning cannot follow its graph ({error}); press it without pruning"
        ) from error
    if pruned != columns:
        raise StageError(f"{name}: pruning changed its output from {list(columns)} to {list(pruned)}; press it without")


def _last_layer(module: nn.Module, sample: Any) -> nn.Module:
    """Return the layer with weights that ran last: the one that gives the logits."""
    from torch import nn

    order: list[nn.Module] = []
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    hooks = [layer.register_forward_hook(lambda ran, *_: order.append(ran)) for layer in layers]
    module(sample)
    for hook in hooks:
        hook.remove()
    if not order:
        raise ValueError("it has no Linear or Conv2d layer that runs")
    return order[-1]


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())

"""Structured pruning: how many channels of each layer are removed, by a ratio or to meet a budget, and which.

Which channels are the least important is told by the norm of their group's weights, or by the effect that removing them
would have on the training loss.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from calibration.dataset import Dataset
from targets.errors import MOST_SUGGESTIONS, nearest
from targets.preprocess import Preprocess
from toolchain.checkpoint.float_model import FloatModel
from toolchain.checkpoint.inspection import module_layers
from toolchain.compress.prune import Importance, Prune
from toolchain.compress.prune.graph import ChannelGraph, Channels, by_reason, prunable
from toolchain.core.errors import UsageProblem
from toolchain.core.quantities import counted, macs_text
from toolchain.training.presets import preset

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Scores = Mapping[str, list[float]]
"""Layer -> importance of its channels, one number per index in a block."""
GRADIENT_IMAGES = 256
"""Number of images of the train split for the gradients."""
ROUNDED = 0.02
"""The history mentions rounding where the share removed differs this far from the ratio."""
Measure = Literal["macs", "parameters", "bytes"]
_UNITS: dict[Measure, str] = {"macs": "multiply-accumulate", "parameters": "parameter", "bytes": "byte"}
_RATIO_STEPS = 1000
"""A budget is met by the smallest ratio that does, searched in steps of 1 / 1000."""


def _counted(count: int, measure: Measure) -> str:
    return counted(count, _UNITS[measure])


def measured(module: nn.Module, name: str) -> dict[Measure, int]:
    """Return a module's multiply-accumulates per image, its parameters, and their bytes in float32."""
    parameters = sum(parameter.numel() for parameter in module.parameters())
    macs = module_layers(module, name).macs
    return {"macs": macs, "parameters": parameters, "bytes": 4 * parameters}


def remaining(channels: Channels, ratio: float, round_to: int) -> int:
    """Return how many channels stay when `ratio` is removed: the nearest multiple of `round_to` and of the blocks.

    Never 0; halfway, the lower multiple. All stay in a layer that has no more than the smallest multiple.
    """
    step = math.lcm(round_to, channels.blocks)
    # 1e-9, since 20 * (1 - 0.4) is slightly more than 12 in floating point.
    nearest_multiple = math.ceil(channels.width * (1 - ratio) / step - 0.5 - 1e-9) * step
    return min(channels.width, max(nearest_multiple, step))


def narrowed(module: nn.Module, name: str, scores: Scores, counts: Mapping[str, int]) -> nn.Module:
    """Return the module with `counts` channels in each layer, without the least important ones.

    `module` must not be used afterwards.
    """
    graph = ChannelGraph(module, name)
    removed = {}
    for layer, channels in graph.channels.items():
        surplus = channels.width - counts.get(layer, channels.width)
        # The sort is stable: of equally important channels the first are removed.
        values = scores.get(layer, [])
        order = sorted(range(len(values)), key=values.__getitem__)
        removed[layer] = order[: surplus // channels.blocks]
    graph.cut(removed)
    return graph.module


def channel_scores(
    graph: ChannelGraph,
    layers: Collection[str],
    kind: Importance,
    data: Dataset,
    preprocess: Preprocess,
    *,
    seed: int,
) -> Scores:
    """Return the importance of the channels of `layers`, one number per index in a block; the mean of a layer is 1.

    l1, l2: norms of the group's weights (Li, arXiv:1608.08710). bn-scale: factors of batch norms (Liu,
    arXiv:1708.06519); layers without one are left out. taylor: weight times gradient (Molchanov, arXiv:1906.10771).
    hessian: squared weight times squared gradient of single images, the diagonal of Optimal Brain Damage (LeCun, 1989).
    Gradients are those of the training loss on 256 seeded images of `data`.
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
    # Values that are all zero, as without any gradient, became NaN when they were divided by their mean.
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
    # Its own accumulate_grad keeps only the last image (1.6.1); without a call of it, the parameters' gradients count.
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

    chosen = np.random.default_rng(seed).permutation(len(data))[:GRADIENT_IMAGES]
    images, labels = data.images[chosen], data.labels[chosen] + preprocess.label_offset
    for part in np.array_split(np.arange(len(chosen)), -(-len(chosen) // size)):
        yield torch.from_numpy(preprocess.apply(images[part])), torch.from_numpy(labels[part]).long()


class Structured:
    """Structured pruning of one model, in the rounds of the step."""

    def __init__(self, model: FloatModel, step: Prune, data: Dataset, seed: int) -> None:
        """Score the channels; raises UsageProblem or StageError where the step cannot be done."""
        self.model, self.name, self.step, self.data, self.seed = model, model.name, step, data, seed
        module = model.torch_module("pruning")
        self.start = measured(module, self.name)
        self.channels, self.refused = prunable(module, self.name)
        self._refuse_layers()
        graph = ChannelGraph(copy.deepcopy(module), self.name)
        scores = self._scores(graph)
        self._first_scores: Scores | None = scores
        self.channels = refuse_unscored(self.channels, scores, self.refused, step.importance, self.name)
        for layer in step.layers:
            self._refuse_layer(layer)
        if self.budget:
            self._refuse_budget(module, scores, *self.budget)
        elif self._counts(scores, 1.0) == {layer: channels.width for layer, channels in self.channels.items()}:
            raise UsageProblem(f"{self.name}: {self._nothing_removed(self.channels)}")

    @property
    def budget(self) -> tuple[Measure, int] | None:
        """Return the measure that the step limits, and the limit."""
        limits = ((measure, getattr(self.step, measure)) for measure in _UNITS)
        return next(((measure, int(most)) for measure, most in limits if most is not None), None)

    def cut(self, module: nn.Module, share: float) -> nn.Module:
        """Return the module with `share`, 0 to 1, of the pruning done; `module` must not be used afterwards."""
        # Those of the first round are known: nothing has changed since.
        scores = self._first_scores or self._scores(ChannelGraph(module, self.name))
        self._first_scores = None
        if self.budget:
            measure, most = self.budget
            limit = self.start[measure] + share * (most - self.start[measure])
            return self._within(module, scores, measure, limit)
        return narrowed(module, self.name, scores, self._counts(scores, share))

    def line(self, module: nn.Module) -> str:
        """Return a line on what was done, for the history."""
        end = measured(module, self.name)
        ranking = f"by {self.step.importance}{' over all layers' if self.step.scope == 'global' else ''}"
        after = ChannelGraph(copy.deepcopy(module), self.name).channels
        widths = [sum(channels[layer].width for layer in self.channels) for channels in (self.channels, after)]
        removed = 1 - widths[1] / widths[0]
        rounded = self.step.ratio is not None and not self.step.layers and abs(removed - self.step.ratio) > ROUNDED
        sizes = (
            f"{widths[0]:,} to {widths[1]:,} channels"
            f"{f' ({removed:.0%}, for they stay in multiples of {self.step.round_to})' if rounded else ''}, "
            f"{self.start['parameters']:,} to {end['parameters']:,} parameters, "
            f"{macs_text(self.start['macs'])} to {macs_text(end['macs'])}"
        )
        unpruned = {layer: reason for layer, reason in self.refused.items() if reason != "it gives the logits"}
        note = f"; left whole: {by_reason(unpruned)}" if unpruned else ""
        return f"pruned {self._amount()} {ranking}: {sizes}{note}"

    def _amount(self) -> str:
        if self.budget:
            measure, most = self.budget
            return f"channels until at most {_counted(most, measure)} were left"
        return self.step.ratios_text("of the channels")

    def _scores(self, graph: ChannelGraph) -> Scores:
        return channel_scores(
            graph, self.channels, self.step.importance, self.data, self.model.preprocess, seed=self.seed
        )

    def _counts(self, scores: Scores, share: float) -> dict[str, int]:
        """Return how many channels each layer keeps after the round in which `share` of the pruning is done."""
        if not self.step.layers:
            return self._counts_at(scores, (self.step.ratio or 0.0) * share)
        ratios = {layer: self.step.layers.get(layer, self.step.ratio or 0.0) * share for layer in self.channels}
        return {
            layer: remaining(channels, ratios[layer], self.step.round_to) if ratios[layer] else channels.width
            for layer, channels in self.channels.items()
        }

    def _counts_at(self, scores: Scores, ratio: float) -> dict[str, int]:
        """Return the counts at one ratio: the same in each layer, or of all channels in one ranking."""
        if self.step.scope == "layer":
            return {layer: remaining(channels, ratio, self.step.round_to) for layer, channels in self.channels.items()}
        sizes = {layer: channels.width // channels.blocks for layer, channels in self.channels.items()}
        total = math.ceil(sum(sizes.values()) * (1 - ratio))
        best = sorted((-value, layer) for layer, values in scores.items() for value in values)[:total]
        counts = dict.fromkeys(self.channels, 0)
        for _, layer in best:
            counts[layer] += 1
        return {
            layer: remaining(channels, 1 - counts[layer] / sizes[layer], self.step.round_to)
            for layer, channels in self.channels.items()
        }

    def _within(self, module: nn.Module, scores: Scores, measure: Measure, limit: float) -> nn.Module:
        """Return the module pruned by the smallest ratio that meets the limit."""
        low, high = 0, _RATIO_STEPS
        while high - low > 1:
            middle = (low + high) // 2
            counts = self._counts_at(scores, middle / _RATIO_STEPS)
            trial = narrowed(copy.deepcopy(module), self.name, scores, counts)
            low, high = (low, middle) if measured(trial, self.name)[measure] <= limit else (middle, high)
        return narrowed(module, self.name, scores, self._counts_at(scores, high / _RATIO_STEPS))

    def _refuse_budget(self, module: nn.Module, scores: Scores, measure: Measure, most: int) -> None:
        if self.start[measure] <= most:
            raise UsageProblem(
                f"{self.name} has {_counted(self.start[measure], measure)} already, within the {most:,} asked for; "
                "ask for fewer"
            )
        smallest = narrowed(copy.deepcopy(module), self.name, scores, self._counts_at(scores, 1.0))
        if (floor := measured(smallest, self.name)[measure]) > most:
            raise UsageProblem(
                f"{self.name} cannot be pruned to {_counted(most, measure)}: {floor:,} are the least that channels in "
                f"multiples of {self.step.round_to} leave; allow more, or round to a smaller multiple"
            )

    def _refuse_layers(self) -> None:
        tied = {other: layer for layer, channels in self.channels.items() for other in channels.tied}
        for layer in self.step.layers:
            if layer in tied:
                raise UsageProblem(
                    f"{self.name}: {layer} is tied to {tied[layer]}, whose channels it shares; give the ratio to "
                    f"{tied[layer]}"
                )
            self._refuse_layer(layer)
            if layer not in self.channels:
                refuse_unknown(layer, list(self.channels), self.name)
            channels = self.channels[layer]
            if remaining(channels, self.step.layers[layer], self.step.round_to) == channels.width:
                raise UsageProblem(f"{self.name}: {self._nothing_removed({layer: channels})}")

    def _refuse_layer(self, layer: str) -> None:
        if layer in self.refused:
            raise UsageProblem(f"{self.name}: {layer} cannot be pruned: {self.refused[layer]}; leave it out")

    def _nothing_removed(self, layers: Mapping[str, Channels]) -> str:
        widths = ", ".join(f"{layer} has {channels.width}" for layer, channels in list(layers.items())[:3])
        return (
            f"no channel can be removed, because {self.step.round_to} or a multiple of it must stay ({widths}); "
            "give a higher ratio, or a smaller `round_to`"
        )


def refuse_unscored(
    channels: dict[str, Channels], scores: Scores, refused: dict[str, str], kind: str, name: str
) -> dict[str, Channels]:
    """Return the channels that have scores, and add the others to `refused`; raises UsageProblem where none has any."""
    if not scores.keys() & channels.keys():
        raise UsageProblem(
            f"{name} has no batch norm, whose factors {kind} ranks channels by; take another importance, such as l2"
        )
    refused |= {layer: f"it has no batch norm, which {kind} goes by" for layer in channels if layer not in scores}
    return {layer: channels[layer] for layer in channels if layer in scores}


def refuse_unknown(layer: str, known: list[str], name: str) -> None:
    """Raise UsageProblem for a layer that the model does not have, with the names nearest to it."""
    # Names of layers share long prefixes; users often give the last part alone.
    same_end = [name for name in known if name.rsplit(".", 1)[-1] == layer][:MOST_SUGGESTIONS]
    near = nearest(layer, same_end or known, f"it has {', '.join(known[:MOST_SUGGESTIONS])} ...", cutoff=0.5)
    raise UsageProblem(f"{name} has no layer '{layer}' to prune; {near}")

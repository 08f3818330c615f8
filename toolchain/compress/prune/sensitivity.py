"""Sensitivity: the accuracy of a model when one layer alone is pruned (Li, arXiv:1608.08710, figure 2)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from calibration.dataset import Dataset
from toolchain.checkpoint.float_model import FloatModel
from toolchain.compress.prune import Importance
from toolchain.compress.prune.graph import ChannelGraph, Channels, prunable
from toolchain.compress.prune.structured import channel_scores, narrowed, refuse_unscored, remaining
from toolchain.compress.prune.unstructured import magnitude_mask, weight_tensors
from toolchain.core.context import Progress, RunContext
from toolchain.core.errors import StageError, UsageProblem
from toolchain.training.device import torch_threads
from toolchain.training.fit import accuracy, hold_out

if TYPE_CHECKING:
    from torch import nn

RATIOS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)
"""Ratios tried of each layer; of several that leave the same number of channels only the first."""
IMAGES = 2000
"""Number of validation images of the train split, at most half of it."""


@dataclass(frozen=True)
class SensitivityPoint:
    """The model with one layer pruned by `ratio`. left: channels or nonzero weights that the layer still has."""

    ratio: float
    left: int
    parameters: int
    accuracy: float


@dataclass(frozen=True)
class Curve:
    """The model's accuracy at each ratio of one layer. whole: channels or weights of the layer before pruning."""

    layer: str
    tied: tuple[str, ...]
    whole: int
    points: tuple[SensitivityPoint, ...]


@dataclass(frozen=True)
class Sensitivity:
    """The curves of a model, and the ratios that they propose.

    accuracy: of the unpruned model, on `images` validation images of the train split. proposal: for each layer the
    highest ratio up to which the accuracy falls by at most `tolerance`; layers without such a ratio are left out.
    together: the model with the whole proposal at once, before any fine-tuning, with the highest of its ratios; None
    without a proposal. refused: why other layers cannot be pruned. history: of the model.
    """

    model: str
    checkpoint_sha256: str
    method: Literal["structured", "magnitude"]
    importance: Importance
    round_to: int
    origin: str
    images: int
    seed: int
    accuracy: float
    tolerance: float
    curves: tuple[Curve, ...]
    refused: Mapping[str, str]
    proposal: Mapping[str, float]
    together: SensitivityPoint | None
    history: tuple[str, ...] = ()


def sensitivity(
    model: FloatModel,
    data: Dataset,
    *,
    method: Literal["structured", "magnitude"] = "structured",
    importance: Importance = "l2",
    round_to: int = 8,
    tolerance: float = 0.01,
    context: RunContext,
) -> Sensitivity:
    """Prune each layer alone at rising ratios, without fine-tuning, and evaluate it on images of a train split.

    These images are drawn by class, with the seed; gradients for an importance are taken on the others. The checkpoint
    may have been trained on all of them, since only differences matter. Raises UsageProblem for a test split, and what
    `prune` raises.
    """
    if data.split != "train":
        raise UsageProblem(f"{data.origin} is a test split; a recipe that was chosen on it could not be judged on it")
    if method == "magnitude" and (importance, round_to) != ("l2", 8):
        raise UsageProblem("`importance` and `round_to` belong to structured pruning; leave them out of magnitude's")
    fitted, held_out = hold_out(data, min(0.5, IMAGES / len(data)), context.seed)
    others, validation = data.take(fitted, "fitted"), data.take(held_out, "validation")
    with torch_threads(context.threads):
        structured = method == "structured"
        trial = _Channels(model, others, importance, round_to, context.seed) if structured else _Weights(model)

        def evaluated(ratios: Mapping[str, float]) -> SensitivityPoint:
            pruned, size = trial.pruned(ratios)
            parameters = sum(parameter.numel() for parameter in pruned.parameters())
            share = accuracy(pruned, validation, model.preprocess, threads=context.threads)
            return SensitivityPoint(max(ratios.values()), size, parameters, share)

        unpruned = accuracy(copy.deepcopy(trial.module), validation, model.preprocess, threads=context.threads)
        points = _points(trial, evaluated, context.progress)
        proposal = {layer: ratio for layer in points if (ratio := _highest_ratio(points[layer], unpruned - tolerance))}
        together = evaluated(proposal) if proposal else None
    curves = tuple(Curve(layer, trial.tied[layer], trial.sizes[layer], tuple(points[layer])) for layer in points)
    return Sensitivity(
        model=model.name,
        checkpoint_sha256=model.checkpoint_sha256,
        method=method,
        importance=importance,
        round_to=round_to,
        origin=data.origin,
        images=len(validation),
        seed=context.seed,
        accuracy=unpruned,
        tolerance=tolerance,
        curves=curves,
        refused=trial.refused,
        proposal=proposal,
        together=together,
        history=model.history,
    )


def _points(
    trial: _Channels | _Weights, evaluated: Callable[[Mapping[str, float]], SensitivityPoint], progress: Progress
) -> dict[str, list[SensitivityPoint]]:
    """Return the points of each layer, pruned alone at each of its ratios."""
    tries = [(layer, ratio) for layer in trial.sizes for ratio in trial.ratios(layer)]
    points: dict[str, list[SensitivityPoint]] = {layer: [] for layer in trial.sizes}
    for done, (layer, ratio) in enumerate(tries):
        progress("sensitivity", done, len(tries))
        points[layer].append(evaluated({layer: ratio}))
    progress("sensitivity", len(tries), len(tries))
    return points


def _highest_ratio(points: list[SensitivityPoint], floor: float) -> float | None:
    """Return the highest ratio up to which no point lies below the floor."""
    below = next((index for index, point in enumerate(points) if point.accuracy < floor - 1e-12), len(points))
    return points[below - 1].ratio if below else None


class _Channels:
    """Trials of structured pruning: the channels are ranked once, on the unpruned model."""

    def __init__(self, model: FloatModel, data: Dataset, importance: Importance, round_to: int, seed: int) -> None:
        self.module, self.name, self.round_to = model.torch_module("pruning"), model.name, round_to
        possible, self.refused = prunable(self.module, self.name)
        graph = ChannelGraph(copy.deepcopy(self.module), self.name)
        self.scores = channel_scores(graph, possible, importance, data, model.preprocess, seed=seed)
        self.channels: dict[str, Channels] = refuse_unscored(possible, self.scores, self.refused, importance, self.name)
        self.sizes = {layer: channels.width for layer, channels in self.channels.items()}
        self.tied = {layer: channels.tied for layer, channels in self.channels.items()}

    def ratios(self, layer: str) -> list[float]:
        counts = {ratio: remaining(self.channels[layer], ratio, self.round_to) for ratio in RATIOS}
        first = {count: ratio for ratio, count in reversed(counts.items()) if count < self.sizes[layer]}
        return sorted(first.values())

    def pruned(self, ratios: Mapping[str, float]) -> tuple[nn.Module, int]:
        counts = {layer: remaining(self.channels[layer], ratio, self.round_to) for layer, ratio in ratios.items()}
        return narrowed(copy.deepcopy(self.module), self.name, self.scores, counts), sum(counts.values())


class _Weights:
    """Trials of magnitude pruning."""

    def __init__(self, model: FloatModel) -> None:
        self.module, self.refused = model.torch_module("pruning"), dict[str, str]()
        self.sizes = {layer: weight.numel() for layer, weight in weight_tensors(self.module).items()}
        if not self.sizes:
            raise StageError(f"{model.name} has no Linear or Conv2d layer; there is nothing to prune")
        self.tied: dict[str, tuple[str, ...]] = dict.fromkeys(self.sizes, ())

    def ratios(self, layer: str) -> list[float]:
        return [ratio for ratio in RATIOS if round(ratio * self.sizes[layer])]

    def pruned(self, ratios: Mapping[str, float]) -> tuple[nn.Module, int]:
        module = copy.deepcopy(self.module)
        tensors = weight_tensors(module)
        for layer, ratio in ratios.items():
            tensors[layer].mul_(magnitude_mask(tensors[layer], round(ratio * self.sizes[layer])))
        return module, sum(int(tensors[layer].count_nonzero()) for layer in ratios)

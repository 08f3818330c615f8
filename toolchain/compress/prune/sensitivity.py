"""Sensitivity: how well a model reads when one layer alone is pruned (Li, arXiv:1608.08710, figure 2)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from calibration.dataset import Dataset
from toolchain.checkpoint.float_model import FloatModel
from toolchain.compress.prune.graph import ChannelGraph, Channels, prunable
from toolchain.compress.prune.importance import scores
from toolchain.compress.prune.settings import Importance
from toolchain.compress.prune.structured import kept, least, refuse_unranked
from toolchain.compress.prune.unstructured import lowest, weights
from toolchain.core.context import RunContext
from toolchain.core.errors import StageError, UsageProblem
from toolchain.core.progress import Progress
from toolchain.training.fit import accuracy, hold_out, torch_threads

if TYPE_CHECKING:
    from torch import nn

RATIOS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)
"""What is tried of each layer; of ratios that leave equally many channels the first."""
IMAGES = 2000
"""How many images of the train split are read, at most half of it."""


@dataclass(frozen=True)
class SensitivityPoint:
    """One layer at one ratio. left: channels, or weights that are not zero. parameters: of the whole model."""

    ratio: float
    left: int
    parameters: int
    accuracy: float


@dataclass(frozen=True)
class Curve:
    """One layer, and how the model reads at each ratio of it. whole: its channels, or weights, to begin with."""

    layer: str
    tied: tuple[str, ...]
    whole: int
    points: tuple[SensitivityPoint, ...]


@dataclass(frozen=True)
class Sensitivity:
    """The curves of a model, and what they propose.

    accuracy: of the model as it is, on `images` validation images of the train split. proposal: of each layer the
    highest ratio up to which accuracy falls by at most `tolerance`; layers without one are left out. together:
    all of it at once (its ratio is the highest), before any fine-tuning; None without a proposal. refused: why
    other layers cannot be pruned. history: what was done to the model before.
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

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        return asdict(self)


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
    """Prune each layer alone at rising ratios, without fine-tuning, and read held-out images of a train split.

    The images are drawn by class, with the seed; gradients of an importance that needs them come from the others. The
    checkpoint may have been trained on all of them: what counts are differences. Raises UsageProblem for a test split,
    and what `prune` raises.
    """
    if data.split != "train":
        raise UsageProblem(f"{data.origin} is a test split; a recipe that was chosen on it could not be judged on it")
    if method == "magnitude" and (importance, round_to) != ("l2", 8):
        raise UsageProblem("importance and round_to belong to structured pruning; leave them out of magnitude's")
    rest, held = hold_out(data.labels, min(0.5, IMAGES / len(data)), context.seed)
    fitted, shown = data.take(rest, "fitted"), data.take(held, "validation")
    with torch_threads(context.threads):
        module = model.torch_module("pruning")
        trial = (
            _Channels(model, fitted, importance, round_to, context.seed) if method == "structured" else _Weights(model)
        )

        def read(goes: Mapping[str, float]) -> SensitivityPoint:
            pruned, left = trial.pruned(goes)
            parameters = sum(parameter.numel() for parameter in pruned.parameters())
            share = accuracy(pruned, shown, model.preprocess, threads=context.threads)
            return SensitivityPoint(max(goes.values()), left, parameters, share)

        whole = accuracy(copy.deepcopy(module), shown, model.preprocess, threads=context.threads)
        points = _points(trial, read, context.progress)
        proposal = {layer: best for layer, own in points.items() if (best := _highest(own, whole - tolerance))}
        together = read(proposal) if proposal else None
    curves = tuple(Curve(layer, trial.tied(layer), trial.sizes[layer], tuple(own)) for layer, own in points.items())
    return Sensitivity(
        model=model.name,
        checkpoint_sha256=model.checkpoint_sha256,
        method=method,
        importance=importance,
        round_to=round_to,
        origin=data.origin,
        images=len(shown),
        seed=context.seed,
        accuracy=whole,
        tolerance=tolerance,
        curves=curves,
        refused=trial.refused,
        proposal=proposal,
        together=together,
        history=model.history,
    )


def _points(
    trial: _Channels | _Weights, read: Callable[[Mapping[str, float]], SensitivityPoint], progress: Progress
) -> dict[str, list[SensitivityPoint]]:
    """Return what `read` gives of each layer alone, pruned at each of its ratios."""
    tries = [(layer, ratio) for layer in trial.sizes for ratio in trial.ratios(layer)]
    points: dict[str, list[SensitivityPoint]] = {layer: [] for layer in trial.sizes}
    for done, (layer, ratio) in enumerate(tries):
        progress("sensitivity", done, len(tries))
        points[layer].append(read({layer: ratio}))
    progress("sensitivity", len(tries), len(tries))
    return points


def _highest(points: list[SensitivityPoint], floor: float) -> float | None:
    """Return the highest ratio up to which no point lies under the floor."""
    below = next((place for place, point in enumerate(points) if point.accuracy < floor - 1e-12), len(points))
    return points[below - 1].ratio if below else None


class _Channels:
    """Trials of structured pruning: the channels are ranked once, on the model as it is."""

    def __init__(self, model: FloatModel, data: Dataset, importance: Importance, round_to: int, seed: int) -> None:
        self.module, self.name, self.round_to = model.torch_module("pruning"), model.name, round_to
        found, self.refused = prunable(self.module, self.name)
        graph = ChannelGraph(copy.deepcopy(self.module), self.name)
        self.ranks = scores(graph, found, importance, data, model.preprocess, seed=seed)
        self.channels: dict[str, Channels] = refuse_unranked(found, self.ranks, self.refused, importance, self.name)
        self.sizes = {layer: own.width for layer, own in self.channels.items()}

    def tied(self, layer: str) -> tuple[str, ...]:
        return self.channels[layer].tied

    def ratios(self, layer: str) -> list[float]:
        counts = {ratio: kept(self.channels[layer], ratio, self.round_to) for ratio in RATIOS}
        first = {count: ratio for ratio, count in reversed(counts.items()) if count < self.sizes[layer]}
        return sorted(first.values())

    def pruned(self, goes: Mapping[str, float]) -> tuple[nn.Module, int]:
        graph = ChannelGraph(copy.deepcopy(self.module), self.name)
        counts = {layer: kept(self.channels[layer], ratio, self.round_to) for layer, ratio in goes.items()}
        graph.cut({layer: least(self.ranks[layer], self.channels[layer], keep) for layer, keep in counts.items()})
        return graph.module, sum(counts.values())


class _Weights:
    """Trials of magnitude pruning."""

    def __init__(self, model: FloatModel) -> None:
        self.module, self.refused = model.torch_module("pruning"), dict[str, str]()
        found = weights(self.module)
        if not found:
            raise StageError(f"{model.name} has no Linear or Conv2d layer; there is nothing to prune")
        self.sizes = {name: getattr(layer, attribute).numel() for name, (layer, attribute) in found.items()}

    def tied(self, _layer: str) -> tuple[str, ...]:
        return ()

    def ratios(self, layer: str) -> list[float]:
        return [ratio for ratio in RATIOS if round(ratio * self.sizes[layer])]

    def pruned(self, goes: Mapping[str, float]) -> tuple[nn.Module, int]:
        import torch

        module = copy.deepcopy(self.module)
        places, left = weights(module), 0
        with torch.no_grad():
            for layer, ratio in goes.items():
                tensor = getattr(*places[layer])
                tensor.mul_(lowest(tensor, round(ratio * tensor.numel())))
                left += int(np.count_nonzero(tensor.numpy()))
        return module, left

"""Structured pruning: how many channels of each layer go, by a ratio or until a budget is met, and which."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from calibration.dataset import Dataset
from targets.errors import MOST, nearest
from toolchain.checkpoint.float_model import FloatModel
from toolchain.checkpoint.inspection.torch_file import module_layers
from toolchain.compress.prune.graph import ChannelGraph, Channels, by_reason, prunable
from toolchain.compress.prune.importance import scores
from toolchain.compress.prune.settings import PruneSettings
from toolchain.core.errors import UsageProblem
from toolchain.core.quantities import macs_text

if TYPE_CHECKING:
    from torch import nn

ROUNDED = 0.02
"""A share that differs so far from the one asked for is told."""
Measure = Literal["macs", "parameters", "bytes"]
_UNITS: dict[Measure, str] = {"macs": "multiply-accumulates", "parameters": "parameters", "bytes": "bytes"}
_FINEST = 1000
"""A budget is met by the smallest ratio in so many parts that does."""


def measured(module: nn.Module, name: str) -> dict[Measure, int]:
    """Return a module's multiply-accumulates an image, its parameters, and the bytes of these in float32."""
    parameters = sum(parameter.numel() for parameter in module.parameters())
    macs = module_layers(module, name).macs
    return {"macs": macs, "parameters": parameters, "bytes": 4 * parameters}


def kept(own: Channels, ratio: float, round_to: int) -> int:
    """Return how many channels stay when `ratio` goes: the nearest multiple of `round_to` and of the blocks.

    Never none. Halfway, the lower one; all stay in a layer that has no more than the least multiple.
    """
    step = math.lcm(round_to, own.blocks)
    # The tiny rest is what 20 * (1 - 0.4) has too many of 12.
    wanted = math.ceil(own.width * (1 - ratio) / step - 0.5 - 1e-9) * step
    return min(own.width, max(wanted, step))


def least(values: list[float], own: Channels, keep: int) -> list[int]:
    """Return the places of a block that go, the least important, so that `keep` channels of the layer stay."""
    order = sorted(range(len(values)), key=lambda place: (values[place], place))
    return order[: (own.width - keep) // own.blocks]


@dataclass
class Structured:
    """Structured pruning of one model, in as many rounds as the step says."""

    model: FloatModel
    step: PruneSettings
    data: Dataset
    seed: int

    def __post_init__(self) -> None:
        """Raise UsageProblem or StageError where the step cannot be done, before any of it is."""
        module, self.name = self.model.torch_module("pruning"), self.model.name
        self.start = measured(module, self.name)
        self.channels, self.refused = prunable(module, self.name)
        self._refuse_layers()
        graph = ChannelGraph(copy.deepcopy(module), self.name)
        self._ranks: dict[str, list[float]] | None = self._scores(graph)
        ranks = self._ranks
        self.channels = refuse_unranked(self.channels, ranks, self.refused, self.step.importance, self.name)
        if unranked := [layer for layer in self.step.layers if layer in self.refused]:
            raise UsageProblem(
                f"{self.name}: {unranked[0]} cannot be pruned: {self.refused[unranked[0]]}; leave it out"
            )
        if self.budget:
            self._refuse_budget(module, ranks)
        elif self._counts(ranks, 1.0) == {layer: own.width for layer, own in self.channels.items()}:
            raise UsageProblem(f"{self.name}: {self._nothing(self.channels)}")

    @property
    def budget(self) -> tuple[Measure, int] | None:
        """Return what the step limits, and to how much."""
        said: dict[Measure, float | None] = {
            "macs": self.step.macs,
            "parameters": self.step.parameters,
            "bytes": self.step.bytes,
        }
        return next(((measure, int(most)) for measure, most in said.items() if most is not None), None)

    def cut(self, module: nn.Module, share: float) -> nn.Module:
        """Return the module with `share`, 0 to 1, of all that is to go gone by now; `module` is used up."""
        # The first round's are known already: nothing has changed since.
        ranks = self._ranks or self._scores(ChannelGraph(module, self.name))
        self._ranks = None
        if self.budget:
            measure, most = self.budget
            limit = self.start[measure] + share * (most - self.start[measure])
            return self._within(module, ranks, measure, limit)
        return self._pruned(module, ranks, self._counts(ranks, share))

    def line(self, module: nn.Module) -> str:
        """Return what was done, for the history."""
        end = measured(module, self.name)
        words = f"by {self.step.importance}{' over all layers' if self.step.scope == 'global' else ''}"
        stay = ChannelGraph(copy.deepcopy(module), self.name).channels
        widths = [sum(own[layer].width for layer in self.channels) for own in (self.channels, stay)]
        gone = 1 - widths[1] / widths[0]
        rounded = self.step.ratio is not None and not self.step.layers and abs(gone - self.step.ratio) > ROUNDED
        sizes = (
            f"{widths[0]:,} to {widths[1]:,} channels"
            f"{f' ({gone:.0%}, for they stay in multiples of {self.step.round_to})' if rounded else ''}, "
            f"{self.start['parameters']:,} to {end['parameters']:,} parameters, "
            f"{macs_text(self.start['macs'])} to {macs_text(end['macs'])}"
        )
        left = {layer: reason for layer, reason in self.refused.items() if reason != "it gives the logits"}
        note = f"; left whole: {by_reason(left)}" if left else ""
        return f"pruned {self._aim()} {words}: {sizes}{note}"

    def _aim(self) -> str:
        if self.budget:
            measure, most = self.budget
            return f"channels until at most {most:,} {_UNITS[measure]} were left"
        parts = [f"{100 * ratio:.3g}% of {layer}" for layer, ratio in self.step.layers.items()]
        parts += [f"{100 * self.step.ratio:.3g}% of the channels"] if self.step.ratio is not None else []
        return ", ".join(parts)

    def _scores(self, graph: ChannelGraph) -> dict[str, list[float]]:
        how = self.step.importance, self.data, self.model.preprocess
        return scores(graph, self.channels, *how, seed=self.seed)

    def _counts(self, ranks: Mapping[str, list[float]], share: float) -> dict[str, int]:
        """Return how many channels each layer keeps, of those it began with, in this round."""
        if not self.step.layers:
            return self._at(ranks, (self.step.ratio or 0.0) * share)
        ratios = {layer: self.step.layers.get(layer, self.step.ratio or 0.0) * share for layer in self.channels}
        return {
            layer: kept(own, ratios[layer], self.step.round_to) if ratios[layer] else own.width
            for layer, own in self.channels.items()
        }

    def _at(self, ranks: Mapping[str, list[float]], ratio: float) -> dict[str, int]:
        """Return the counts at one ratio: the same of each layer, or of all channels in one ranking."""
        if self.step.scope == "layer":
            return {layer: kept(own, ratio, self.step.round_to) for layer, own in self.channels.items()}
        sizes = {layer: own.width // own.blocks for layer, own in self.channels.items()}
        stay = math.ceil(sum(sizes.values()) * (1 - ratio))
        best = sorted((-value, layer) for layer, values in ranks.items() for value in values)[:stay]
        counts = dict.fromkeys(self.channels, 0)
        for _, layer in best:
            counts[layer] += 1
        return {
            layer: kept(own, 1 - counts[layer] / sizes[layer], self.step.round_to)
            for layer, own in self.channels.items()
        }

    def _pruned(self, module: nn.Module, ranks: Mapping[str, list[float]], counts: Mapping[str, int]) -> nn.Module:
        graph = ChannelGraph(module, self.name)
        graph.cut(
            {
                layer: least(ranks[layer], now, counts[layer])
                for layer, now in graph.channels.items()
                if layer in counts and counts[layer] < now.width
            }
        )
        return graph.module

    def _within(self, module: nn.Module, ranks: Mapping[str, list[float]], measure: Measure, limit: float) -> nn.Module:
        """Return the module pruned by the smallest ratio that meets the limit."""
        low, high = 0, _FINEST
        while high - low > 1:
            middle = (low + high) // 2
            trial = self._pruned(copy.deepcopy(module), ranks, self._at(ranks, middle / _FINEST))
            low, high = (low, middle) if measured(trial, self.name)[measure] <= limit else (middle, high)
        return self._pruned(module, ranks, self._at(ranks, high / _FINEST))

    def _refuse_budget(self, module: nn.Module, ranks: Mapping[str, list[float]]) -> None:
        measure, most = self.budget or ("macs", 0)
        if self.start[measure] <= most:
            raise UsageProblem(
                f"{self.name} has {self.start[measure]:,} {_UNITS[measure]} already, within the {most:,} asked for; "
                "ask for fewer"
            )
        bare = self._pruned(copy.deepcopy(module), ranks, self._at(ranks, 1.0))
        if (floor := measured(bare, self.name)[measure]) > most:
            raise UsageProblem(
                f"{self.name} cannot be pruned to {most:,} {_UNITS[measure]}: {floor:,} are the least that channels in "
                f"multiples of {self.step.round_to} leave; allow more, or round to a smaller multiple"
            )

    def _refuse_layers(self) -> None:
        tied = {other: layer for layer, own in self.channels.items() for other in own.tied}
        for layer in self.step.layers:
            if layer in tied:
                raise UsageProblem(
                    f"{self.name}: {layer} is tied to {tied[layer]}, whose channels it shares; give the ratio to "
                    f"{tied[layer]}"
                )
            if layer in self.refused:
                raise UsageProblem(f"{self.name}: {layer} cannot be pruned: {self.refused[layer]}; leave it out")
            if layer not in self.channels:
                refuse_unknown(layer, list(self.channels), self.name)
            own = self.channels[layer]
            if kept(own, self.step.layers[layer], self.step.round_to) == own.width:
                raise UsageProblem(f"{self.name}: {self._nothing({layer: own})}")

    def _nothing(self, channels: Mapping[str, Channels]) -> str:
        widths = ", ".join(f"{layer} has {own.width}" for layer, own in list(channels.items())[:3])
        return (
            f"no channel goes when {self.step.round_to} or a multiple of it must stay ({widths}); "
            "give a higher ratio, or a smaller round_to"
        )


def refuse_unranked(
    channels: dict[str, Channels], ranks: Mapping[str, list[float]], refused: dict[str, str], kind: str, name: str
) -> dict[str, Channels]:
    """Return the channels that an importance ranks, and note the others in `refused`.

    Raises UsageProblem where it ranks none.
    """
    if not ranks.keys() & channels.keys():
        raise UsageProblem(
            f"{name} has no batch norm, whose factors {kind} goes by; take another importance, such as l2"
        )
    refused |= {layer: f"it has no batch norm, which {kind} goes by" for layer in channels if layer not in ranks}
    return {layer: own for layer, own in channels.items() if layer in ranks}


def refuse_unknown(layer: str, known: list[str], name: str) -> None:
    """Raise UsageProblem with the names nearest to one that the model does not have."""
    # Names of layers share long beginnings; the last part alone is often what is known.
    same = [one for one in known if one.rsplit(".", 1)[-1] == layer][:MOST]
    near = nearest(layer, same or known, f"it has {', '.join(known[:MOST])} ...", cutoff=0.5)
    raise UsageProblem(f"{name} has no layer '{layer}' to prune; {near}")

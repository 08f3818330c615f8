"""Pruning: the prune step, with rounds of pruning and fine-tuning."""

from __future__ import annotations

import copy
from dataclasses import replace
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Annotated, Literal, Protocol, Self

from pydantic import Field, model_validator

from toolchain.compress import ModelStep, StepContext, fine_tuning, keep_zeros, remove_masks
from toolchain.core.quantities import counted
from toolchain.core.settings import Bytes

if TYPE_CHECKING:
    from torch import nn

    from calibration.dataset import Dataset
    from toolchain.checkpoint.float_model import FloatModel
    from toolchain.core.context import RunContext

Method = Literal["structured", "magnitude", "n:m"]
Importance = Literal["l1", "l2", "taylor", "bn-scale", "hessian"]
Scope = Literal["layer", "global"]
Share = Annotated[float, Field(gt=0, lt=1)]

_STRUCTURED_ONLY = ("macs", "parameters", "bytes", "importance", "round_to")
PRUNERS: dict[Method, str] = {
    "structured": "toolchain.compress.prune.structured:Structured",
    "magnitude": "toolchain.compress.prune.unstructured:Unstructured",
    "n:m": "toolchain.compress.prune.unstructured:Unstructured",
}
"""Method -> "module:Class" of its `Pruner`, made of the model, the step, the train split and the seed."""


class Pruner(Protocol):
    """What prunes one model in rounds. Making one raises what `prune` raises where the step cannot be done."""

    def cut(self, module: nn.Module, share: float) -> nn.Module:
        """Return the module with `share`, 0 to 1, of the pruning done; `module` must not be used afterwards."""

    def line(self, module: nn.Module) -> str:
        """Return a line on what was done to the module, for the history."""


class Prune(ModelStep):
    """Pruning, and fine-tuning of what remains.

    structured: whole channels are removed, which makes the file smaller. magnitude: single weights become zero (Han,
    arXiv:1506.02626). n:m: of each m weights along the inputs the n largest stay (Mishra, arXiv:2104.08378). Zeros
    make a file neither smaller nor faster until it is packed.

    The amount is given once: by `ratio`, by a budget (`macs`, `parameters` or `bytes`), by `layers`, or by `layers`
    with `ratio` for all others; for n:m by `pattern`.
    """

    kind: Literal["prune"] = "prune"
    method: Method = "structured"
    ratio: Share | None = Field(default=None, description="share of the channels, or of the weights, to remove")
    macs: int | None = Field(default=None, ge=1, le=10**15, description="most multiply-accumulates per image")
    parameters: int | None = Field(default=None, ge=1, le=10**15, description="most parameters")
    bytes: Bytes | None = Field(default=None, description="most bytes of float parameters, 4 each")
    layers: dict[str, Share] = Field(default_factory=dict, description='ratios of single layers, "conv1" = 0.25')
    pattern: str = Field(default="2:4", pattern=r"^[1-9]\d?:[1-9]\d?$", description="n:m: how many of how many stay")
    importance: Importance = Field(default="l2", description="how channels are ranked; the least important go first")
    scope: Scope = Field(default="layer", description="the same ratio in each layer, or one ranking over all")
    iterations: int = Field(default=1, ge=1, le=100, description="rounds, each of pruning and fine-tuning")
    epochs: int = Field(default=4, ge=0, le=100_000, description="epochs of fine-tuning on the train split per round")
    soft: float = Field(default=0.0, ge=0, le=1, description="fine-tuning: weight of the unpruned model's answers")
    temperature: float = Field(default=2.0, ge=1, le=20, description="softens those answers")
    round_to: int = Field(default=8, ge=1, le=4096, description="channel counts are kept multiples of this")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        amounts = [name for name in ("ratio", "macs", "parameters", "bytes") if getattr(self, name) is not None]
        if len(amounts) > 1:
            raise ValueError(f"{' and '.join(f'`{name}`' for name in amounts)} exclude each other; give one of them")
        if self.layers and amounts and amounts != ["ratio"]:
            raise ValueError(f"`layers` and `{amounts[0]}` exclude each other; give `layers` alone or with `ratio`")
        if self.layers and self.scope == "global":
            raise ValueError("`layers` and `scope` global exclude each other; take `scope` layer")
        if self.method == "n:m":
            self._check_pattern(amounts)
        elif not amounts and not self.layers:
            raise ValueError(
                "it does not say how much to prune; give `ratio`, `macs`, `parameters`, `bytes` or `layers`"
            )
        self._check_method()
        return self

    def _check_pattern(self, amounts: list[str]) -> None:
        stay, of = self.n_of_m
        if stay >= of:
            raise ValueError(f"`pattern` {self.pattern} keeps every weight; keep fewer than there are, such as 2:4")
        if amounts or self.layers or self.scope != "layer" or self.iterations != 1:
            raise ValueError(
                "n:m takes `pattern` alone; `ratio`, `layers`, `scope` and `iterations` belong to other methods"
            )

    def _check_method(self) -> None:
        fields = type(self).model_fields
        foreign: tuple[str, ...] = () if self.method == "structured" else _STRUCTURED_ONLY
        if self.method != "n:m":
            foreign += ("pattern",)
        for name in foreign:
            if getattr(self, name) != fields[name].default:
                raise ValueError(f"`{name}` does not belong to `method` {self.method}; leave it out")

    @property
    def n_of_m(self) -> tuple[int, int]:
        """Return the two numbers of `pattern`."""
        stay, _, of = self.pattern.partition(":")
        return int(stay), int(of)

    def ratios_text(self, others: str) -> str:
        """Return `layers` and `ratio` for the history. others: what `ratio` applies to, such as "in each layer"."""
        ratios = [(f"of {layer}", ratio) for layer, ratio in self.layers.items()]
        ratios += [(others, self.ratio)] if self.ratio is not None else []
        return ", ".join(f"{100 * ratio:.3g}% {part}" for part, ratio in ratios)

    def check(self, model: FloatModel, context: StepContext) -> None:
        """Raise what pruning would raise before it trains: layers or budgets that the model cannot have."""
        from toolchain.training.device import torch_threads

        with torch_threads(context.run.threads):
            _pruner(model, self, context.train, context.run.seed)

    def apply(self, model: FloatModel, context: StepContext) -> FloatModel:
        """Return the pruned and fine-tuned model."""
        return prune(model, self, context.train, context=context.run)


def prune(model: FloatModel, step: Prune, data: Dataset, *, context: RunContext) -> FloatModel:
    """Return the model pruned as `step` says, fine-tuned on `data` (a train split) after each round.

    Structured: channels are removed with their whole dependency group; the layer that gives the logits keeps its width,
    and the history names the layers that could not be pruned. Otherwise weights become zero and stay zero in
    fine-tuning. Raises StageError when the model is not in torch or its graph cannot be traced, UsageProblem when the
    step names a layer or a budget that the model cannot have; both before any training.
    """
    from toolchain.training.device import torch_threads

    with torch_threads(context.threads):
        rounds = _pruner(model, step, data, context.seed)
        module = copy.deepcopy(model.torch_module("pruning"))
        for number in range(1, step.iterations + 1):
            module = rounds.cut(module, number / step.iterations)
            if step.epochs:
                module = _fine_tuned(module, model, step, data, context)
    each_round = f" in each of {step.iterations} rounds" if step.iterations > 1 else ""
    taught = f", {step.soft:.0%} of the loss by the whole model's answers" if step.soft and step.epochs else ""
    tuning = f"{counted(step.epochs, 'epoch')} of fine-tuning on {data.origin}{each_round}{taught}"
    line = f"{rounds.line(module)}; {tuning}, seed {context.seed}"
    return replace(model.with_module(module.eval()), history=(*model.history, line))


def _pruner(model: FloatModel, step: Prune, data: Dataset, seed: int) -> Pruner:
    """Return what prunes the model in rounds; raises as `prune` does where the step cannot be done."""
    made: Pruner = resolve_name(PRUNERS[step.method])(model, step, data, seed)
    return made


def _fine_tuned(module: nn.Module, model: FloatModel, step: Prune, data: Dataset, context: RunContext) -> nn.Module:
    from toolchain.training.fit import fit
    from toolchain.training.loss import taught_by

    settings = fine_tuning(len(data), epochs=step.epochs)
    module = keep_zeros(module)
    if not step.soft:
        return remove_masks(fit(module, data, model.preprocess, settings, context=context))
    with taught_by(model, temperature=step.temperature, soft=step.soft, threads=context.threads) as lesson:
        return remove_masks(fit(module, data, model.preprocess, settings, lesson=lesson, context=context))

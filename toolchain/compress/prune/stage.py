"""The pruning stage: rounds of pruning and fine-tuning."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

from calibration.dataset import Dataset
from toolchain.checkpoint.float_model import FloatModel
from toolchain.compress.prune.settings import PruneSettings
from toolchain.compress.prune.structured import Structured
from toolchain.compress.prune.unstructured import Unstructured, baked, zeros_kept
from toolchain.core.context import RunContext
from toolchain.training.fit import fit, torch_threads
from toolchain.training.losses import taught_by
from toolchain.training.settings import preset, preset_for

if TYPE_CHECKING:
    from torch import nn


def prune(
    model: FloatModel,
    step: PruneSettings,
    data: Dataset,
    *,
    context: RunContext,
) -> FloatModel:
    """Return the model pruned as `step` says, fine-tuned on `data` (a train split) after each round.

    Structured: channels go with their whole dependency group; the layer that gives the logits keeps its width, and
    history names what had to stay besides. Unstructured: weights become zero and stay zero while others are tuned.
    Raises StageError when the model is not in torch or its graph cannot be followed, UsageProblem when the step asks
    for a layer or a budget that it cannot have; both before any training.
    """
    with torch_threads(context.threads):
        work = planned(model, step, data, seed=context.seed)
        module = copy.deepcopy(model.torch_module("pruning"))
        for number in range(1, step.iterations + 1):
            module = work.cut(module, number / step.iterations)
            if step.epochs:
                module = _tuned(module, model, step, data, context)
    rounds = f" in each of {step.iterations} rounds" if step.iterations > 1 else ""
    taught = f", {step.soft:.0%} of the loss by the whole model's answers" if step.soft and step.epochs else ""
    epochs = f"{step.epochs} epoch{'s' * (step.epochs != 1)}"
    line = f"{work.line(module)}; {epochs} of fine-tuning on {data.origin}{rounds}{taught}, seed {context.seed}"
    return replace(model.with_module(module.eval()), history=(*model.history, line))


def planned(model: FloatModel, step: PruneSettings, data: Dataset, *, seed: int = 0) -> Structured | Unstructured:
    """Return the work that a step asks for on a model; raises as `prune` does where it cannot be done."""
    return Structured(model, step, data, seed) if step.method == "structured" else Unstructured(model, step)


def _tuned(
    module: nn.Module,
    model: FloatModel,
    step: PruneSettings,
    data: Dataset,
    context: RunContext,
) -> nn.Module:
    # Few images need small batches, or a handful of steps is all they give.
    settings = preset("fine-tune").changed(epochs=step.epochs, batch=preset_for(len(data)).batch)
    module = zeros_kept(module)
    if not step.soft:
        return baked(fit(module, data, model.preprocess, settings, context=context))
    with taught_by(model, temperature=step.temperature, soft=step.soft, threads=context.threads) as lesson:
        return baked(fit(module, data, model.preprocess, settings, lesson=lesson, context=context))

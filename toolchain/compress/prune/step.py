"""The prune step: rounds of pruning and fine-tuning."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

from toolchain.compress.prune.settings import PruneSettings
from toolchain.training.settings import preset, preset_for

if TYPE_CHECKING:
    from torch import nn

    from calibration.dataset import Dataset
    from toolchain.checkpoint.float_model import FloatModel
    from toolchain.compress.prune.structured import Structured
    from toolchain.compress.prune.unstructured import Unstructured
    from toolchain.compress.step import StepContext
    from toolchain.core.context import RunContext


class Prune(PruneSettings):
    """Pruning, and fine-tuning of what remains.

    structured: whole channels are removed, which makes the file smaller. magnitude: single weights become zero (Han,
    arXiv:1506.02626). n:m: of each m weights along the inputs the n largest stay (Mishra, arXiv:2104.08378). Zeros
    make a file neither smaller nor faster until it is packed.

    The amount is given once: by `ratio`, by a budget (`macs`, `parameters` or `bytes`), by `layers`, or by `layers`
    with `ratio` for all others; for n:m by `pattern`.
    """

    def check(self, model: FloatModel, context: StepContext) -> None:
        """Raise what pruning would raise before it trains: layers or budgets that the model cannot have."""
        from toolchain.training.fit import torch_threads

        with torch_threads(context.run.threads):
            pruner(model, self, context.train, context.run.seed)

    def apply(self, model: FloatModel, context: StepContext) -> FloatModel:
        """Return the pruned and fine-tuned model."""
        return prune(model, self, context.train, context=context.run)


def prune(model: FloatModel, step: PruneSettings, data: Dataset, *, context: RunContext) -> FloatModel:
    """Return the model pruned as `step` says, fine-tuned on `data` (a train split) after each round.

    Structured: channels are removed with their whole dependency group; the layer that gives the logits keeps its width,
    and the history names the layers that could not be pruned. Unstructured: weights become zero and stay zero in
    fine-tuning. Raises StageError when the model is not in torch or its graph cannot be followed, UsageProblem when the
    step names a layer or a budget that the model cannot have; both before any training.
    """
    from toolchain.training.fit import torch_threads

    with torch_threads(context.threads):
        rounds = pruner(model, step, data, context.seed)
        module = copy.deepcopy(model.torch_module("pruning"))
        for number in range(1, step.iterations + 1):
            module = rounds.cut(module, number / step.iterations)
            if step.epochs:
                module = _fine_tuned(module, model, step, data, context)
    each_round = f" in each of {step.iterations} rounds" if step.iterations > 1 else ""
    taught = f", {step.soft:.0%} of the loss by the whole model's answers" if step.soft and step.epochs else ""
    epochs = f"{step.epochs} epoch{'s' * (step.epochs != 1)}"
    line = f"{rounds.line(module)}; {epochs} of fine-tuning on {data.origin}{each_round}{taught}, seed {context.seed}"
    return replace(model.with_module(module.eval()), history=(*model.history, line))


def pruner(model: FloatModel, step: PruneSettings, data: Dataset, seed: int) -> Structured | Unstructured:
    """Return what prunes the model in rounds; raises as `prune` does where the step cannot be done."""
    if step.method == "structured":
        from toolchain.compress.prune.structured import Structured

        return Structured(model, step, data, seed)
    from toolchain.compress.prune.unstructured import Unstructured

    return Unstructured(model, step)


def _fine_tuned(
    module: nn.Module, model: FloatModel, step: PruneSettings, data: Dataset, context: RunContext
) -> nn.Module:
    from toolchain.compress.prune.unstructured import baked, zeros_kept
    from toolchain.training.fit import fit, taught_by

    # Few images need small batches, or an epoch would have a handful of steps.
    settings = preset("fine-tune").changed(epochs=step.epochs, batch=preset_for(len(data)).batch)
    module = zeros_kept(module)
    if not step.soft:
        return baked(fit(module, data, model.preprocess, settings, context=context))
    with taught_by(model, temperature=step.temperature, soft=step.soft, threads=context.threads) as lesson:
        return baked(fit(module, data, model.preprocess, settings, lesson=lesson, context=context))

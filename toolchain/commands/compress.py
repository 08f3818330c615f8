"""Apply one compression step (`prune`, `distill`) to a checkpoint, or measure the sensitivity of its layers."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from calibration.dataset import Dataset
from calibration.load import load_or_why, train_split
from toolchain.checkpoint import CheckpointRequest, settle
from toolchain.checkpoint.float_model import FloatModel
from toolchain.compress import ModelStep, StepContext
from toolchain.compress.prune.sensitivity import Sensitivity, sensitivity
from toolchain.core.context import RunContext
from toolchain.core.errors import StageError, UsageProblem
from toolchain.core.files import refuse_existing, refuse_source
from toolchain.core.quantities import percent_text
from toolchain.core.resume import may_replace, resumable
from toolchain.evaluation.compared_models import ComparedModels
from toolchain.export import reference_logits, save_program
from toolchain.recipe import Prune, Recipe
from toolchain.stats.share import wilson

_COMPARED = 1_024
"""Images on which the models are compared: equal answers are known to about 1 pp, in a second or two."""


@dataclass(frozen=True)
class Compressed:
    """The result of a step, and its comparison with the checkpoint. warning: empty where nothing is wrong with it."""

    model: FloatModel
    compared: ComparedModels
    warning: str


def compress_checkpoint(
    checkpoint: str,
    request: CheckpointRequest,
    step: ModelStep,
    output: Path,
    *,
    data: str,
    context: RunContext,
) -> Compressed:
    """Apply one step to a checkpoint and write the result as a torch.export program (.pt2).

    Both models are compared on images of the test split, or of the train split where there is none. A killed run can
    be continued (`resumable`).
    """
    if output.suffix != ".pt2":
        raise UsageProblem(f"{output}: only a .pt2 file keeps the shapes of such a model; let the name end in .pt2")
    refuse_source(output, Path(checkpoint))
    refuse_existing(output, force=may_replace(output, context))
    with resumable(output, context) as run:
        return _compressed(checkpoint, request, step, output, data=data, context=run)


def _compressed(
    checkpoint: str, request: CheckpointRequest, step: ModelStep, output: Path, *, data: str, context: RunContext
) -> Compressed:
    images = train_split(request.data(data), context.data_root, f"{step.kind} needs training images")
    settled = settle(checkpoint, request, images, seed=context.seed)
    images = images.in_order(settled.model.classes)
    changed = step.apply(settled.model, StepContext(context, images, settled.model))
    test = load_or_why(request.data(data), "test", context.data_root)
    judging = test.in_order(settled.model.classes) if isinstance(test, Dataset) else images
    compared, chance = _compare_models(settled.model, changed, judging, context.seed)
    warning = _chance_warning(output, step, compared, chance)
    digest = save_program(changed, output, compared=asdict(compared), force=context.force)
    return Compressed(replace(changed, checkpoint_sha256=digest, origin_sha256=changed.root_sha256), compared, warning)


def _chance_warning(output: Path, step: ModelStep, compared: ComparedModels, chance: float) -> str:
    """Return that a model is not shown to read better than one that always gives the most frequent class, or ""."""
    surely, _ = wilson(round(compared.accuracy * compared.images), compared.images)
    if surely > chance:
        return ""
    fix = "remove less" if isinstance(step, Prune) else "take a larger student"
    return (
        f"{output} reads {percent_text(compared.accuracy)}, which is not shown to be better than chance "
        f"({percent_text(chance)}); {fix}, or train it for more epochs"
    )


def _compare_models(before: FloatModel, after: FloatModel, data: Dataset, seed: int) -> tuple[ComparedModels, float]:
    """Compare two models on a seeded sample of labelled images; also return the share of its most frequent class."""
    sample = np.random.default_rng(seed).permutation(len(data))[:_COMPARED]
    answers_before, answers_after = (
        reference_logits(model, data.images[sample]).argmax(axis=1) for model in (before, after)
    )
    accuracies = (float((answers == data.labels[sample]).mean()) for answers in (answers_before, answers_after))
    agreement = float((answers_before == answers_after).mean())
    chance = float(np.bincount(data.labels[sample]).max() / len(sample))
    return ComparedModels(before.name, len(sample), data.origin, agreement, *accuracies), chance


def sensitivity_of(
    checkpoint: str,
    request: CheckpointRequest,
    *,
    data: str,
    context: RunContext,
    **settings: Any,
) -> Sensitivity:
    """Load a checkpoint and the train split, and run `sensitivity` on them with its settings."""
    images = train_split(request.data(data), context.data_root, "sensitivity needs training images")
    settled = settle(checkpoint, request, images, seed=context.seed)
    return sensitivity(settled.model, images.in_order(settled.model.classes), context=context, **settings)


def proposed_recipe(result: Sensitivity, name: str) -> Recipe:
    """Return a recipe that prunes as proposed and fine-tunes; characters that its name cannot have become `-`.

    Raises StageError where nothing is proposed.
    """
    if not result.proposal:
        raise StageError(
            f"no layer of {result.model} can lose an eighth within {result.tolerance * 100:g}pp; raise --tolerance"
        )
    structured = {"importance": result.importance, "round_to": result.round_to} if result.method == "structured" else {}
    step = Prune.model_validate({"method": result.method, "layers": dict(result.proposal)} | structured)
    summary = f"{result.model}: each layer alone loses at most {result.tolerance * 100:g}pp on {result.origin}."
    plain = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-") or "proposal"
    return Recipe(name=plain, summary=summary, steps=(step,))

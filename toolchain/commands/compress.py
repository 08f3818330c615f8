"""Take a checkpoint through one compression step (`prune`, `distill`), or measure how its layers bear pruning."""

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
from toolchain.compress.prune.sensitivity import Sensitivity, sensitivity
from toolchain.compress.step import ModelStep, StepContext
from toolchain.core.context import RunContext
from toolchain.core.errors import StageError, UsageProblem
from toolchain.core.files import refuse_existing, refuse_source
from toolchain.evaluation.compare import ComparedModels
from toolchain.export.parity import reference_logits
from toolchain.export.program import save_program
from toolchain.recipe import Prune, Recipe

COMPARED = 1_024
"""Images that the model reads before and after: equal answers are known to about 1 pp, in a second or two."""


@dataclass(frozen=True)
class Compressed:
    """What a step made of a checkpoint, and how it reads beside it."""

    model: FloatModel
    compared: ComparedModels


def compress_checkpoint(
    checkpoint: str,
    words: CheckpointRequest,
    step: ModelStep,
    output: Path,
    *,
    data: str,
    context: RunContext,
) -> Compressed:
    """Take a checkpoint through one step and write what comes out as a torch.export program (.pt2).

    Both models are compared on images of the test split, or of the train split where there is none.
    """
    if output.suffix != ".pt2":
        raise UsageProblem(f"{output}: such a model has shapes of its own, so it is saved as .pt2; name it so")
    refuse_source(output, Path(checkpoint))
    refuse_existing(output, force=context.force)
    images = train_split(words.data(data), context.data_root, f"{step.kind} needs training images")
    settled = settle(checkpoint, words, images, seed=context.seed)
    shaped = step.apply(settled.model, StepContext(context, images, settled.model))
    test = load_or_why(words.data(data), "test", context.data_root)
    compared = compare_models(settled.model, shaped, test if isinstance(test, Dataset) else images, context.seed)
    digest = save_program(shaped, output, compared=asdict(compared), force=context.force)
    return Compressed(replace(shaped, checkpoint_sha256=digest, origin_sha256=shaped.root_sha256), compared)


def compare_models(before: FloatModel, after: FloatModel, data: Dataset, seed: int = 0) -> ComparedModels:
    """Return how both models read the same seeded sample of labelled images."""
    some = np.random.default_rng(seed).permutation(len(data))[:COMPARED]
    old, new = (reference_logits(model, data.images[some]).argmax(axis=1) for model in (before, after))
    accuracies = (float((answers == data.labels[some]).mean()) for answers in (old, new))
    return ComparedModels(before.name, len(some), data.origin, float((old == new).mean()), *accuracies)


def sensitivity_of(
    checkpoint: str,
    words: CheckpointRequest,
    *,
    data: str,
    context: RunContext,
    **how: Any,
) -> Sensitivity:
    """Load a checkpoint and the train split of its data, and return what `sensitivity` finds; `how` goes to it."""
    images = train_split(words.data(data), context.data_root, "sensitivity needs training images")
    settled = settle(checkpoint, words, images, seed=context.seed)
    return sensitivity(settled.model, images, **how, context=context)


def proposed_recipe(found: Sensitivity, name: str) -> Recipe:
    """Return a recipe that prunes as proposed and fine-tunes; `name` loses what a recipe's name cannot have.

    Raises StageError where nothing is proposed.
    """
    if not found.proposal:
        raise StageError(
            f"no layer of {found.model} can lose an eighth within {found.tolerance * 100:g}pp; raise --tolerance"
        )
    how = {"importance": found.importance, "round_to": found.round_to} if found.method == "structured" else {}
    step = Prune.model_validate({"method": found.method, "layers": dict(found.proposal)} | how)
    summary = f"{found.model}: each layer alone loses at most {found.tolerance * 100:g}pp on {found.origin}."
    plain = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-") or "proposal"
    return Recipe(name=plain, summary=summary, steps=(step,))

"""Take a checkpoint through one compression step (`prune`, `distill`), or measure how its layers bear pruning."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from calibration.load import train_split
from toolchain.checkpoint import CheckpointRequest, settle
from toolchain.checkpoint.float_model import FloatModel
from toolchain.compress.prune import Sensitivity, sensitivity
from toolchain.compress.step import ModelStep, StepContext
from toolchain.core.context import RunContext
from toolchain.core.errors import StageError, UsageProblem
from toolchain.core.files import refuse_existing, refuse_source
from toolchain.core.progress import Progress, silent
from toolchain.export.program import save_program
from toolchain.recipe import Prune, Recipe


def compress_checkpoint(
    checkpoint: str,
    words: CheckpointRequest,
    step: ModelStep,
    output: Path,
    *,
    data: str,
    data_root: Path | None = None,
    seed: int = 0,
    threads: int = 0,
    force: bool = False,
    progress: Progress = silent,
) -> FloatModel:
    """Take a checkpoint through one step and write what comes out as a torch.export program (.pt2)."""
    if output.suffix != ".pt2":
        raise UsageProblem(f"{output}: such a model has shapes of its own, so it is saved as .pt2; name it so")
    refuse_source(output, Path(checkpoint))
    refuse_existing(output, force=force)
    images = train_split(words.data(data), data_root, f"{step.kind} needs training images")
    settled = settle(checkpoint, words, images, seed=seed)
    run = RunContext(seed=seed, threads=threads, progress=progress)
    shaped = step.apply(settled.model, StepContext(run, images, settled.model))
    digest = save_program(shaped, output, force=force)
    return replace(shaped, checkpoint_sha256=digest, origin_sha256=shaped.root_sha256)


def sensitivity_of(
    checkpoint: str,
    words: CheckpointRequest,
    *,
    data: str,
    data_root: Path | None = None,
    seed: int = 0,
    **how: Any,
) -> Sensitivity:
    """Load a checkpoint and the train split of its data, and return what `sensitivity` finds; `how` goes to it."""
    images = train_split(words.data(data), data_root, "sensitivity needs training images")
    settled = settle(checkpoint, words, images, seed=seed)
    return sensitivity(settled.model, images, seed=seed, **how)


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

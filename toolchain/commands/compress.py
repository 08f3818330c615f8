"""Take a checkpoint through one compression step (`prune`, `distill`), or measure how its layers bear pruning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from calibration.dataset import train_split
from toolchain.checkpoint import CheckpointRequest, settle
from toolchain.checkpoint.float_model import FloatModel
from toolchain.compress.apply import Shaper
from toolchain.compress.prune import Sensitivity, sensitivity
from toolchain.errors import UsageProblem
from toolchain.export.program import save_program
from toolchain.files import refuse_existing, refuse_source
from toolchain.progress import Progress, silent
from toolchain.recipe import Distill, Equalize, Prune, Recipe


def compress_checkpoint(
    checkpoint: str,
    words: CheckpointRequest,
    step: Prune | Distill | Equalize,
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
    recipe = Recipe(name=step.kind, steps=(step,))
    shaped = Shaper(images, seed, threads, progress).shaped(settled.model, recipe)
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

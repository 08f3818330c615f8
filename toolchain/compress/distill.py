"""Knowledge distillation (Hinton, Vinyals and Dean, arXiv:1503.02531): FloatModel in, FloatModel out."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from calibration.dataset import Dataset
from toolchain import models
from toolchain.checkpoint.float_model import FloatModel
from toolchain.compress.prune import baked, zeros_kept
from toolchain.progress import Progress, silent
from toolchain.recipe import Distill
from toolchain.training.fit import fit
from toolchain.training.losses import notes_on, taught_by
from toolchain.training.settings import preset_for

if TYPE_CHECKING:
    from torch import nn


def distill(
    model: FloatModel,
    step: Distill,
    data: Dataset,
    *,
    teacher: FloatModel,
    seed: int = 0,
    threads: int = 0,
    progress: Progress = silent,
) -> FloatModel:
    """Return a student of `teacher`, fitted to `data` (a train split).

    The student is `step.student` with fresh weights, or `model` itself where the step names none, whose zeros stay;
    it takes images as `model` does. Raises UsageProblem for a test split, StageError when the
    model that goes on is not in torch.
    """
    # No smoothing: the teacher's answers are smooth already.
    settings = preset_for(len(data)).changed(epochs=step.epochs, augment=step.augment, label_smoothing=0.0)
    preprocess = model.preprocess
    if step.student:
        student, preprocess = _student(step, len(model.classes), seed), replace(preprocess, label_offset=0)
    else:
        student = zeros_kept(copy.deepcopy(model.torch_module("distillation")))
    with taught_by(teacher, temperature=step.temperature, soft=step.soft, threads=threads) as lesson:
        run: dict[str, Any] = {"seed": seed, "threads": threads, "progress": progress}
        module = baked(fit(student, data, preprocess, settings, lesson=lesson, **run))
    parameters = sum(parameter.numel() for parameter in module.parameters())
    line = (
        f"distilled {step.student or model.name}, {parameters:,} parameters, from {teacher.name} for {step.epochs} "
        f"epoch{'s' * (step.epochs != 1)} on {data.origin}, temperature {step.temperature:g}, {step.soft:.0%} of the "
        f"loss soft, seed {seed}"
    )
    history = (*model.history, *notes_on(teacher, model), line)
    return replace(model, module=module.eval(), onnx=None, preprocess=preprocess, history=history)


def untrained(model: FloatModel, step: Distill, *, seed: int = 0) -> FloatModel:
    """Return the student that a step names before it has learned anything: it converts as it will when it has."""
    student = baked(_student(step, len(model.classes), seed).eval())
    return replace(model, module=student, onnx=None, preprocess=replace(model.preprocess, label_offset=0))


def _student(step: Distill, classes: int, seed: int) -> nn.Module:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return models.build(step.student, classes, **step.architecture)

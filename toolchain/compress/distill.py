"""Knowledge distillation (Hinton, Vinyals and Dean, arXiv:1503.02531)."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, PrivateAttr, field_validator, model_validator

from targets.host.text import as_written
from toolchain import models
from toolchain.compress import PRECISION_TEXT, ModelStep, Precision, StepContext, keep_zeros, remove_masks
from toolchain.compress.student import STUDENT, byte_limit, plan
from toolchain.core.quantities import counted
from toolchain.quantize.step import Quantize
from toolchain.training.presets import preset_for

if TYPE_CHECKING:
    from torch import nn

    from calibration.dataset import Dataset
    from toolchain.checkpoint.float_model import FloatModel
    from toolchain.core.context import RunContext


class Distill(ModelStep):
    """Knowledge distillation (Hinton, arXiv:1503.02531): a student is fitted to the answers of the original model.

    The loss is `soft` times the divergence from the teacher's probabilities at `temperature` (times its square, so that
    gradients keep their size), plus 1 - `soft` times the usual loss on labels.
    """

    kind: Literal["distill"] = "distill"
    student: str = Field(default="", description="a reference architecture; empty: train the model itself further")
    channels: tuple[int, ...] = Field(default=(), description="of the student's convolutions; empty: its own")
    bytes: str | None = Field(
        default=None,
        description="of the finished .onnx at most: a share of the float one, such as 1/20, or a size, such as 16KiB; "
        "chooses `channels`",
    )
    dropout: float | None = Field(default=None, ge=0, lt=1, description="of the student in training; empty: its own")
    teacher: str = Field(default="", description="a checkpoint to learn from; empty: the original model")
    epochs: int = Field(default=24, ge=1, le=100_000, description="epochs on the train split")
    augment: float = Field(default=1.0, ge=0, le=3, description="strength of the random affine maps; 0: none")
    temperature: float = Field(default=2.0, ge=1, le=20, description="softens the probabilities of teacher and student")
    soft: float = Field(default=0.9, gt=0, le=1, description="weight of the teacher's answers against the labels")
    precision: Precision = Field(default="float32", description=PRECISION_TEXT)

    _choice: str = PrivateAttr(default="")

    @field_validator("bytes", mode="before")
    @classmethod
    def _bytes(cls, value: object) -> object:
        if not isinstance(value, str):
            raise ValueError(f'{as_written(value)} needs quotes and a unit, or is a share, such as "16KiB" or "1/20"')
        byte_limit(value, 0)
        return value

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.student and (self.architecture or self.bytes):
            keys = " and ".join(f"`{key}`" for key in [*self.architecture, *["bytes"] * bool(self.bytes)])
            raise ValueError(f"{keys} belong to a student; name one, or leave them out")
        if self.bytes and self.channels:
            raise ValueError("`bytes` and `channels` exclude each other: the bytes choose the channels")
        if self.bytes and self.student != STUDENT:
            raise ValueError(f"`bytes` chooses the channels of {STUDENT} only; leave it out, or take that student")
        return self

    @property
    def choice(self) -> str:
        """Return the student that `bytes` chose, and why."""
        return self._choice

    def planned(self, model: FloatModel, context: StepContext) -> Self:
        """Return the step with the channels that `bytes` chooses; without a quantization after it, for static-int4."""
        if not self.bytes or self.channels:
            return self
        last = next((step for step in context.following if isinstance(step, Quantize)), Quantize(scheme="static-int4"))
        chosen = plan(self.bytes, model, last, context.train, partial(self._sized, model, context), run=context.run)
        context.run.say(chosen.reason)
        step = self.model_copy(update={"channels": chosen.channels})
        step._choice = chosen.reason
        return step

    def _sized(self, model: FloatModel, context: StepContext, channels: tuple[int, ...]) -> nn.Module:
        """Return an untrained student with random biases in its norms: equal ones would make its file too small."""
        import torch
        from torch import nn

        drawn = torch.Generator().manual_seed(context.run.seed)
        student = _student(self.model_copy(update={"channels": channels}), len(model.classes), context.run.seed)
        for norm in student.modules():
            if isinstance(norm, nn.BatchNorm2d):
                nn.init.uniform_(norm.bias, generator=drawn)
        return student.eval()

    @property
    def architecture(self) -> dict[str, tuple[int, ...] | float]:
        """Return the options that replace the student's own."""
        channels = {"channels": self.channels} if self.channels else {}
        return channels | ({} if self.dropout is None else {"dropout": self.dropout})

    @property
    def builds_student(self) -> bool:
        """Return whether it builds a student of another architecture."""
        return bool(self.student)

    def check(self, model: FloatModel, context: StepContext) -> None:  # noqa: ARG002 (any model has a teacher)
        """Raise what keeps the teacher from being loaded."""
        context.teacher(self.teacher)

    def apply(self, model: FloatModel, context: StepContext) -> FloatModel:
        """Return the fitted student, or the model itself trained further."""
        return distill(
            model,
            self.planned(model, context),
            context.train,
            teacher=context.teacher(self.teacher),
            context=context.run,
        )

    def untrained(self, model: FloatModel, context: StepContext) -> FloatModel:
        """Return the student before any training; it can be converted just as the trained one."""
        if not self.student:
            return model
        student = remove_masks(_student(self.planned(model, context), len(model.classes), context.run.seed).eval())
        return replace(model.with_module(student), preprocess=replace(model.preprocess, label_offset=0))


def distill(model: FloatModel, step: Distill, data: Dataset, *, teacher: FloatModel, context: RunContext) -> FloatModel:
    """Return a student of `teacher`, fitted to `data` (a train split).

    The student is `step.student` with fresh weights, or `model` itself where the step names none; zeros of `model` stay
    zero. It has the preprocess of `model`. Raises UsageProblem for a test split, StageError when `model` is to be
    trained further and is not in torch.
    """
    from toolchain.training.fit import fit
    from toolchain.training.loss import notes_on, taught_by

    # No smoothing: the teacher's answers are smooth already.
    settings = preset_for(len(data)).changed(
        epochs=step.epochs, augment=step.augment, label_smoothing=0.0, precision=step.precision
    )
    preprocess = model.preprocess
    if step.student:
        student, preprocess = _student(step, len(model.classes), context.seed), replace(preprocess, label_offset=0)
    else:
        student = keep_zeros(copy.deepcopy(model.torch_module("distillation")))
    with taught_by(teacher, temperature=step.temperature, soft=step.soft, threads=context.threads) as lesson:
        module = remove_masks(fit(student, data, preprocess, settings, lesson=lesson, context=context))
    parameters = sum(parameter.numel() for parameter in module.parameters())
    line = (
        f"distilled {step.student or model.name}, {parameters:,} parameters, from {teacher.name} for "
        f"{counted(step.epochs, 'epoch')} on {data.origin}, temperature {step.temperature:g}, {step.soft:.0%} of the "
        f"loss soft, seed {context.seed}"
    )
    history = (*model.history, *notes_on(teacher, model), *[step.choice] * bool(step.choice), line)
    return replace(model.with_module(module.eval()), preprocess=preprocess, history=history)


def _student(step: Distill, classes: int, seed: int) -> nn.Module:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return models.build(step.student, classes, **step.architecture)

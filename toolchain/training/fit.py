"""fit: the training loop of new and fine-tuned models."""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calibration.dataset import Dataset, Labels
from targets.errors import first_line
from targets.host.machine import machine_state
from targets.preprocess import Preprocess
from toolchain.core.context import Progress, RunContext
from toolchain.core.errors import StageError, UsageProblem
from toolchain.training.augment import distorted
from toolchain.training.batches import epoch_order, mixed
from toolchain.training.loss import Lesson, Loss, loss_on
from toolchain.training.optimize import Optimization
from toolchain.training.settings import TrainSettings
from toolchain.training.stopping import EarlyStopping

if TYPE_CHECKING:
    import torch
    from torch import nn

    from toolchain.training.transfer import Frozen

    Tensors = tuple[torch.Tensor, ...] | list[torch.Tensor]


@dataclass(frozen=True)
class EpochResult:
    """The result of one pass over the training images.

    loss: mean over the epoch. held_out_accuracy: of the averaged weights on the held-out images, None without any.
    seconds: since the start. module: the averaged weights so far, with early stopping those of the best epoch, in eval
    mode; the next epoch changes them.
    """

    epoch: int
    epochs: int
    loss: float
    held_out_accuracy: float | None
    seconds: float
    module: nn.Module = field(repr=False, compare=False)


def fit(
    module: nn.Module,
    data: Dataset,
    preprocess: Preprocess,
    settings: TrainSettings,
    *,
    lesson: Lesson | None = None,
    frozen: Frozen | None = None,
    on_epoch: Callable[[EpochResult], None] | None = None,
    context: RunContext,
) -> nn.Module:
    """Return a copy of `module` fitted to `data`, with averaged weights, in eval mode; `module` itself is not changed.

    module: takes what `preprocess` returns, and gives float32 logits [N, columns]; class 0 is column `label_offset`.
    lesson: a teacher whose answers are part of the loss. frozen: layers that keep their weights. The same inputs, seed
    and threads on the same machine give the same bits. torch's global generator and thread count are restored. Raises
    UsageProblem for a test split, and StageError when the module does not run on these images, has too few columns, or
    the loss is no longer finite.
    """
    import torch

    if data.split != "train":
        raise UsageProblem(f"{data.origin} is a test split; a model trained on it could not be judged on it")
    data = data.in_memory()
    fitted, held_out = hold_out(data.labels, settings.held_out, context.seed)
    if settings.needs_held_out and not len(held_out):
        raise UsageProblem(f"no class of {data.origin} has two images, so none can be held out, which this needs")
    with torch_threads(context.threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.seed)
        student, classes, first = _trainable(module), len(data.classes), preprocess.label_offset
        if (columns := _columns(student, data, preprocess)) < classes + first:
            raise StageError(
                f"the model has {columns} outputs, {data.origin} needs {classes} classes from column {first} on; "
                "build it with that many, or name the data it was made for"
            )
        loss_function = loss_on(
            data.labels[fitted], settings, classes=classes, columns=columns, first=first, lesson=lesson
        )
        loop = _Loop(
            student, data, preprocess, settings, fitted=fitted, loss=loss_function, frozen=frozen, seed=context.seed
        )
        start = time.perf_counter()
        stopping, accuracies = EarlyStopping(settings.patience, loop.average), list[float | None]()
        for epoch in range(1, settings.epochs + 1):
            loss = loop.epoch(epoch, context.progress)
            held_out_accuracy = _share_correct(loop.average, data, preprocess, held_out) if len(held_out) else None
            loop.optimization.end_epoch(held_out_accuracy)
            accuracies.append(held_out_accuracy)
            stopping.end_epoch(accuracies)
            seconds = time.perf_counter() - start
            if on_epoch:
                on_epoch(EpochResult(epoch, settings.epochs, loss, held_out_accuracy, seconds, stopping.result))
            if stopping.is_over(accuracies):
                break
    return stopping.result.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload,no-any-return] # as below


def accuracy(module: nn.Module, data: Dataset, preprocess: Preprocess, *, threads: int = 0) -> float:
    """Return the share of `data` that the module classifies correctly, 0 to 1; the module is left in eval mode."""
    with torch_threads(threads):
        return _share_correct(module.eval(), data, preprocess, np.arange(len(data)))


def hold_out(labels: Labels, share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return sorted indices (to fit, held out): `share` of each class is held out, at least one image of two."""
    generator = np.random.default_rng(seed)
    is_held_out = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels) if share else ():
        indices = np.flatnonzero(labels == label)
        count = max(round(share * len(indices)), 1) if len(indices) > 1 else 0
        is_held_out[generator.permutation(indices)[:count]] = True
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)


def memory_format(module: nn.Module) -> torch.memory_format:
    """Return the memory layout that the module's class names, or the contiguous one."""
    import torch

    # Only our own classes name one: a user's module that flattens with view() would fail on channels_last.
    layout: torch.memory_format = getattr(module, "memory_format", torch.contiguous_format)
    return layout


def as_tensor(module: nn.Module, pixels: NDArray[np.float32]) -> torch.Tensor:
    """Return pixels, float32 [N, 1, 28, 28] of `Preprocess.apply`, as the module's input in its memory layout."""
    import torch

    return torch.from_numpy(pixels).contiguous(memory_format=memory_format(module))


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Run torch on that many threads (0: all cores this process may use) inside the block."""
    import torch

    before, state = torch.get_num_threads(), machine_state()
    # The BLAS of torch's Arm wheels crashes on several threads without atomics, which a Raspberry Pi 4 does not have.
    crashes = state["architecture"] == "aarch64" and "atomics" not in state.get("isa", ())
    torch.set_num_threads(1 if crashes else threads or len(os.sched_getaffinity(0)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Loop:
    """The state of a training: student, averaged weights, optimizer and schedule."""

    def __init__(
        self,
        student: nn.Module,
        data: Dataset,
        preprocess: Preprocess,
        settings: TrainSettings,
        *,
        fitted: NDArray[np.int64],
        loss: Loss,
        frozen: Frozen | None,
        seed: int,
    ) -> None:
        import torch
        from torch import optim

        self.student, self.data, self.preprocess, self.settings = student, data, preprocess, settings
        self.fitted, self.generator = fitted, torch.Generator().manual_seed(seed)
        self.batch = min(settings.batch, len(fitted))
        # The incomplete last batch is dropped: a batch of one has no variance, and each epoch has another order.
        self.steps = len(fitted) // self.batch
        self.loss, self.frozen = loss, frozen
        self.optimization = Optimization(student, settings, self.steps)
        self._averaged = optim.swa_utils.AveragedModel(student, multi_avg_fn=_average(settings.ema), use_buffers=True)
        self.average: nn.Module = self._averaged.module.eval()

    def epoch(self, number: int, progress: Progress) -> float:
        """Run one epoch and return its mean loss; raises StageError as soon as a loss is not finite."""

        self.student.train()
        if self.frozen:
            self.frozen.hold(self.student, number)
        order = self.fitted[epoch_order(self.data.labels[self.fitted], self.settings.sampling, self.generator)]
        total = 0.0
        for step in range(self.steps):
            loss = self.step(order[step * self.batch : (step + 1) * self.batch])
            if not math.isfinite(loss):
                raise StageError(self._diverged(number, step, loss))
            total += loss
            progress("train", (number - 1) * self.steps + step + 1, self.settings.epochs * self.steps)
        return total / self.steps

    def step(self, indices: NDArray[np.int64]) -> float:
        """Fit one batch, given by its indices in the data, and return its loss."""
        import torch

        images = distorted(torch.from_numpy(self.data.images[indices]), self.settings, self.generator)
        images, mix = mixed(images, self.settings.mixup, self.generator)
        glyphs = images.numpy()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.settings.precision == "bfloat16"):
            logits = self.student(as_tensor(self.student, self.preprocess.apply(glyphs))).float()
        loss = self.loss(logits, self.data.labels[indices], glyphs, mix)
        self.optimization.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call] # torch has not typed it
        self.optimization.step()
        self._averaged.update_parameters(self.student)
        return float(loss.detach())

    def _diverged(self, number: int, step: int, loss: float) -> str:
        if number == 1 and step == 0:
            return f"the loss is {loss} before the first step: the model's own weights or answers are not finite"
        return (
            f"training diverged: the loss is {loss} in epoch {number}; lower the learning rate, "
            f"such as --lr {self.settings.lr / 4:g}"
        )


def _average(decay: float) -> Callable[[Tensors, Tensors, torch.Tensor | int], None]:
    from torch.optim.swa_utils import get_ema_multi_avg_fn

    def update(averaged: Tensors, current: Tensors, count: torch.Tensor | int) -> None:
        # The decay grows with the steps; otherwise the random start would dominate the first epochs.
        early_decay = (1 + int(count)) / (10 + int(count))
        get_ema_multi_avg_fn(min(decay, early_decay))(averaged, current, count)  # type: ignore[no-untyped-call] # torch has not typed it

    return update


def _trainable(module: nn.Module) -> nn.Module:
    student = copy.deepcopy(module).requires_grad_(True)
    return student.to(memory_format=memory_format(student))  # type: ignore[call-overload,no-any-return] # torch types only the other calls


def _columns(student: nn.Module, data: Dataset, preprocess: Preprocess) -> int:
    import torch

    batch = as_tensor(student, preprocess.apply(data.images[:2]))
    try:
        with torch.no_grad():
            return int(student.eval()(batch).shape[-1])
    except Exception as error:  # a user's forward can raise anything
        raise StageError(
            f"the model does not run on images float32 {list(batch.shape)} ({first_line(error)}); "
            "check the preprocess, or give a model for this input"
        ) from error


def _share_correct(module: nn.Module, data: Dataset, preprocess: Preprocess, indices: NDArray[np.int64]) -> float:
    import torch

    correct, first = 0, preprocess.label_offset
    with torch.inference_mode():
        for batch in np.array_split(indices, math.ceil(len(indices) / 1000)):
            logits = module(as_tensor(module, preprocess.apply(data.images[batch])))
            answers = logits[:, first : first + len(data.classes)].argmax(1).numpy()
            correct += int((answers == data.labels[batch]).sum())
    return correct / len(indices)

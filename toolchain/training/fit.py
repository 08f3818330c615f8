"""fit: the training loop, for a new reference model and for the fine-tune after pruning alike."""

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
from targets.host.machine import machine_state
from targets.preprocess import Preprocess
from toolchain.core.context import RunContext
from toolchain.core.errors import StageError, UsageProblem
from toolchain.core.progress import Progress
from toolchain.training.augment import random_affine
from toolchain.training.losses import Lesson, Loss, log_frequencies
from toolchain.training.settings import TrainSettings

if TYPE_CHECKING:
    import torch
    from torch import nn

    Tensors = tuple[torch.Tensor, ...] | list[torch.Tensor]

WARM_UP = 0.2
"""Share of the steps in which the learning rate rises."""


@dataclass(frozen=True)
class EpochResult:
    """One pass over the training images.

    loss: mean over the epoch. held_out_accuracy: of the averaged weights on the held-out images, None without any.
    seconds: since the start. module: the averaged weights so far, eval mode; the next epoch changes them.
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
    on_epoch: Callable[[EpochResult], None] | None = None,
    context: RunContext,
) -> nn.Module:
    """Return a copy of `module` fitted to `data`: the averaged weights, eval mode; `module` itself stays as it is.

    module: input as `preprocess` gives it, to float32 logits [N, columns]; class 0 is column `label_offset`.
    lesson: a teacher whose answers count too. The same inputs, seed and threads on the same machine give the same bits.
    torch's own generator and thread count are put back. Raises UsageProblem for a test split, and StageError when the
    module does not run on these images, when it has too few columns, or when the loss is no longer finite.
    """
    import torch

    if data.split != "train":
        raise UsageProblem(f"{data.origin} is a test split; a model trained on it could not be judged on it")
    data = data.held()
    fitted, held_out = hold_out(data.labels, settings.held_out, context.seed)
    with torch_threads(context.threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.seed)
        student = _trainable(module)
        if (columns := _columns(student, data, preprocess)) < len(data.classes) + preprocess.label_offset:
            raise StageError(
                f"the model has {columns} outputs, {data.origin} needs {len(data.classes)} classes from column "
                f"{preprocess.label_offset} on; build it with that many, or name the data it was made for"
            )
        prior = torch.from_numpy(
            log_frequencies(data.labels[fitted], len(data.classes), columns, preprocess.label_offset)
        )
        prior *= settings.balance
        loss_of = Loss(prior, settings.label_smoothing, len(data.classes), preprocess.label_offset, lesson)
        loop = _Loop(student, data, preprocess, settings, fitted=fitted, loss=loss_of, seed=context.seed)
        start = time.perf_counter()
        for epoch in range(1, settings.epochs + 1):
            loss = loop.epoch(epoch, context.progress)
            result = EpochResult(
                epoch,
                settings.epochs,
                loss,
                _share(loop.average, data, preprocess, held_out) if len(held_out) else None,
                time.perf_counter() - start,
                loop.average,
            )
            if on_epoch:
                on_epoch(result)
    return loop.average.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload,no-any-return] # as below


def accuracy(module: nn.Module, data: Dataset, preprocess: Preprocess, *, threads: int = 0) -> float:
    """Return the share of `data` that the module reads right, 0 to 1; it is run in eval mode and left in it."""
    with torch_threads(threads):
        return _share(module.eval(), data, preprocess, np.arange(len(data)))


def hold_out(labels: Labels, share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return sorted indices (to fit, held out): of each class `share`, at least one image where it has two or more."""
    chance = np.random.default_rng(seed)
    held = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels) if share else ():
        places = np.flatnonzero(labels == label)
        count = max(round(share * len(places)), 1) if len(places) > 1 else 0
        held[chance.permutation(places)[:count]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def memory_format(module: nn.Module) -> torch.memory_format:
    """Return the memory layout that the module's class names, or the contiguous one."""
    import torch

    # Only a class of our own names one: another model that flattens with view() would fail on it.
    chosen: torch.memory_format = getattr(module, "memory_format", torch.contiguous_format)
    return chosen


def as_tensor(module: nn.Module, pixels: NDArray[np.float32]) -> torch.Tensor:
    """Return float32 [N, 1, 28, 28] (`Preprocess.apply`) as the module's input, in the layout it is fastest on."""
    import torch

    return torch.from_numpy(pixels).contiguous(memory_format=memory_format(module))


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Run torch on that many threads (0: all cores this process may use), and put its own number back."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(_safe_threads(threads or len(os.sched_getaffinity(0))))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _safe_threads(threads: int) -> int:
    """Return 1 where torch dies of more: the BLAS of its Arm wheels needs the atomics that a Raspberry Pi 4 lacks."""
    state = machine_state()
    return 1 if state["architecture"] == "aarch64" and "atomics" not in state.get("isa", ()) else threads


class _Loop:
    """What the steps of a training share: student, averaged weights, optimizer and schedule."""

    def __init__(
        self,
        student: nn.Module,
        data: Dataset,
        preprocess: Preprocess,
        settings: TrainSettings,
        *,
        fitted: NDArray[np.int64],
        loss: Loss,
        seed: int,
    ) -> None:
        import torch
        from torch import optim

        self.student, self.data, self.preprocess, self.settings = student, data, preprocess, settings
        self.fitted, self.chance = fitted, torch.Generator().manual_seed(seed)
        self.batch = min(settings.batch, len(fitted))
        # What is left over at the end of an epoch is dropped: it comes in the next, and a batch of one has no variance.
        self.steps = len(fitted) // self.batch
        self.loss = loss
        self.optimizer = optim.AdamW(student.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
        # Two steps are the fewest that its phases can be laid over.
        total = max(self.steps * settings.epochs, 2)
        self.schedule = optim.lr_scheduler.OneCycleLR(self.optimizer, settings.lr, total_steps=total, pct_start=WARM_UP)
        self._averaged = optim.swa_utils.AveragedModel(student, multi_avg_fn=_average(settings.ema), use_buffers=True)
        self.average: nn.Module = self._averaged.module.eval()

    def epoch(self, number: int, progress: Progress) -> float:
        """Run one epoch and return its mean loss; raises StageError as soon as a loss is not finite."""
        import torch

        self.student.train()
        order = self.fitted[torch.randperm(len(self.fitted), generator=self.chance).numpy()]
        total = 0.0
        for step in range(self.steps):
            loss = self.step(order[step * self.batch : (step + 1) * self.batch])
            if not math.isfinite(loss):
                raise StageError(self._diverged(number, step, loss))
            total += loss
            progress("train", (number - 1) * self.steps + step + 1, self.settings.epochs * self.steps)
        return total / self.steps

    def step(self, places: NDArray[np.int64]) -> float:
        """Fit one batch, given by its indices in the data, and return its loss."""
        import torch

        glyphs = random_affine(torch.from_numpy(self.data.images[places]), self.settings.augment, self.chance).numpy()
        logits = self.student(as_tensor(self.student, self.preprocess.apply(glyphs)))
        loss = self.loss(logits, self.data.labels[places], glyphs)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call] # torch has not typed it
        self.optimizer.step()
        self.schedule.step()
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
        # A young average follows closely; otherwise the random start is read for the first epochs.
        young = (1 + int(count)) / (10 + int(count))
        get_ema_multi_avg_fn(min(decay, young))(averaged, current, count)  # type: ignore[no-untyped-call] # torch has not typed it

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
    except Exception as error:
        # A stranger's forward may raise anything; what matters is that it does not take these images.
        reason = (str(error).splitlines() or [""])[0]
        raise StageError(
            f"the model does not run on images float32 {list(batch.shape)} ({type(error).__name__}: {reason}); "
            "check the preprocess, or give a model for this input"
        ) from error


def _share(module: nn.Module, data: Dataset, preprocess: Preprocess, places: NDArray[np.int64]) -> float:
    import torch

    right, first = 0, preprocess.label_offset
    with torch.inference_mode():
        for part in np.array_split(places, math.ceil(len(places) / 1000)):
            logits = module(as_tensor(module, preprocess.apply(data.images[part])))
            best = logits[:, first : first + len(data.classes)].argmax(1).numpy()
            right += int((best == data.labels[part]).sum())
    return right / len(places)

"""fit: the training loop of new and fine-tuned models."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calibration.dataset import Dataset
from calibration.sample import image_hashes
from targets.errors import first_line, translated
from targets.preprocess import Preprocess
from toolchain.core.context import Progress, RunContext
from toolchain.core.errors import EvidenceError, StageError, UsageProblem
from toolchain.core.trainings import Training
from toolchain.training.augment import distorted
from toolchain.training.batches import epoch_order, mixed
from toolchain.training.device import as_tensor, device_of, memory_format, torch_threads, training_device
from toolchain.training.log import EpochFigures, epoch_line
from toolchain.training.loss import Lesson, Loss, loss_on
from toolchain.training.optimize import Optimization
from toolchain.training.resume import inputs_of, put_tensors, tensors_of
from toolchain.training.settings import TrainSettings
from toolchain.training.stopping import EarlyStopping

if TYPE_CHECKING:
    import torch
    from torch import nn

    from toolchain.training.transfer import Frozen

    Tensors = tuple[torch.Tensor, ...] | list[torch.Tensor]


SAVE_SECONDS = 60.0
"""Within an epoch, the state for a resumed run is saved this often, and in any case after each epoch."""


@dataclass(frozen=True)
class EpochResult(EpochFigures):
    """The result of one pass over the training images.

    module: the averaged weights so far, with early stopping those of the best epoch, in eval mode; the next epoch
    changes them. earlier: the epochs before this one, those before a kill too.
    """

    module: nn.Module = field(repr=False, compare=False)
    earlier: tuple[EpochFigures, ...] = field(default=(), repr=False, compare=False)


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
    lesson: a teacher whose answers are part of the loss. frozen: layers that keep their weights. on_epoch: called at
    least once. The same inputs, seed and threads on the same CPU give the same bits, also where a killed run is
    continued (`context.trainings`); a GPU adds numbers in no fixed order, so there the bits differ. torch's global
    generator and thread count are restored. Raises UsageProblem for a test split and for the state of another training,
    TargetUnavailable without the GPU that is asked for, and StageError when the module does not run on these images,
    has too few columns, or the loss is no longer finite.
    """
    import torch

    if data.split != "train":
        raise UsageProblem(f"{data.origin} is a test split; a model trained on it could not be judged on it")
    data = data.in_memory()
    fitted, held_out = hold_out(data, settings.held_out, context.seed)
    if settings.needs_held_out and not len(held_out):
        raise UsageProblem(
            f"no class of {data.origin} has two different images, so none can be held out, which this needs"
        )
    device = training_device(settings.device)
    with torch_threads(context.threads), torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(context.seed)
        student, classes, first = _trainable(module, device), len(data.classes), preprocess.label_offset
        if (columns := _columns(student, data, preprocess)) < classes + first:
            raise StageError(
                f"the model has {columns} outputs, {data.origin} needs {classes} classes from column {first} on; "
                "build it with that many, or name the data it was made for"
            )
        loss_function = loss_on(
            data.labels[fitted], settings, classes=classes, columns=columns, first=first, lesson=lesson, device=device
        )
        inputs = inputs_of(student, data, preprocess, settings, lesson=lesson, frozen=frozen, seed=context.seed)
        loop = _Loop(
            student, data, preprocess, settings, fitted=fitted, loss=loss_function, frozen=frozen, seed=context.seed
        )
        loop.run(held_out, context.trainings.begin(inputs) if context.trainings else None, on_epoch, context)
    return loop.result.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload,no-any-return] # as below


def accuracy(module: nn.Module, data: Dataset, preprocess: Preprocess, *, threads: int = 0) -> float:
    """Return the share of `data` that the module classifies correctly, 0 to 1; the module is left in eval mode."""
    with torch_threads(threads):
        return _measure(module.eval(), data, preprocess, np.arange(len(data)))[1]


def hold_out(data: Dataset, share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return sorted indices (to fit, held out): `share` of each class is held out, at least one image of two.

    Copies of an image go where the first one goes, whatever their label, and shares are those of different images. A
    class is never held out as a whole.
    """
    labels = data.labels
    is_held_out = np.zeros(len(labels), dtype=bool)
    if not share:
        return np.arange(len(labels)), np.flatnonzero(is_held_out)
    _, first, group = np.unique(image_hashes(data.images), return_index=True, return_inverse=True)
    different = np.sort(first)
    generator = np.random.default_rng(seed)
    for label in np.unique(labels):
        indices = different[labels[different] == label]
        count = max(round(share * len(indices)), 1) if len(indices) > 1 else 0
        is_held_out[generator.permutation(indices)[:count]] = True
    is_held_out = is_held_out[first][group]
    for label in np.setdiff1d(labels, labels[~is_held_out]):
        # All its images are copies of images with another label.
        is_held_out[np.isin(group, group[labels == label])] = False
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)


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
        self.device = device_of(student)
        self.fitted, self.generator = fitted, torch.Generator().manual_seed(seed)
        self.batch = min(settings.batch, len(fitted))
        # The incomplete last batch is dropped: a batch of one has no variance, and each epoch has another order.
        self.steps = len(fitted) // self.batch
        self.loss, self.frozen = loss, frozen
        self.optimization = Optimization(student, settings, self.steps)
        self._averaged = optim.swa_utils.AveragedModel(student, multi_avg_fn=_average(settings.ema), use_buffers=True)
        self.average: nn.Module = self._averaged.module.eval()
        self._stopping = EarlyStopping(settings.patience, self.average)
        self._results: list[EpochFigures] = []
        # Of the epoch that runs: steps done, sum of their losses, and the generator before it gave the order.
        self._done, self._total, self._before_order = 0, 0.0, self.generator.get_state()

    def run(
        self,
        held_out: NDArray[np.int64],
        saved: Training | None,
        on_epoch: Callable[[EpochResult], None] | None,
        context: RunContext,
    ) -> None:
        """Run all epochs, or those that a killed run has not done; held_out: indices of the images to measure on."""
        self._start = self._saved_at = time.perf_counter()
        self._saved = saved
        if saved and saved.state:
            self._load(saved)
            place = "this training is done" if self._is_done else f"continues in epoch {len(self._results) + 1}"
            context.say(f"{saved.path}: {place}")
            if self._is_done and on_epoch:
                *before, last = self._results
                on_epoch(EpochResult(**vars(last), module=self.result, earlier=tuple(before)))
        while not self._is_done:
            loss = self.epoch(len(self._results) + 1, context.progress)
            figures = self._measured(loss, held_out)
            self.optimization.end_epoch(figures.held_out_accuracy)
            earlier = tuple(self._results)
            self._results.append(figures)
            self._stopping.end_epoch(self._accuracies)
            if on_epoch:
                on_epoch(EpochResult(**vars(figures), module=self.result, earlier=earlier))
            context.say(epoch_line(figures))
            self._save()

    @property
    def result(self) -> nn.Module:
        """Return the averaged weights, with early stopping those of the best epoch."""
        return self._stopping.result

    @property
    def _accuracies(self) -> list[float | None]:
        return [figures.held_out_accuracy for figures in self._results]

    @property
    def _is_done(self) -> bool:
        return len(self._results) == self.settings.epochs or self._stopping.is_over(self._accuracies)

    def epoch(self, number: int, progress: Progress) -> float:
        """Run one epoch, or the rest of it, and return its mean loss; raises StageError where a loss is not finite."""
        self.student.train()
        if self.frozen:
            self.frozen.hold(self.student, number)
        order = self._order()
        while self._done < self.steps:
            loss = self.step(order[self._done * self.batch : (self._done + 1) * self.batch])
            if not math.isfinite(loss):
                if self._saved:
                    self._saved.forget()
                raise StageError(self._diverged(number, self._done, loss))
            self._total += loss
            self._done += 1
            progress("train", (number - 1) * self.steps + self._done, self.settings.epochs * self.steps)
            if self._done < self.steps and time.perf_counter() - self._saved_at >= SAVE_SECONDS:
                self._save()
        mean, self._done, self._total = self._total / self.steps, 0, 0.0
        return mean

    def _order(self) -> NDArray[np.int64]:
        """Return the indices of the epoch's images in the order in which they are fitted."""

        now, labels = self.generator.get_state(), self.data.labels[self.fitted]
        if self._done:
            self.generator.set_state(self._before_order)
        self._before_order = self.generator.get_state()
        order: NDArray[np.int64] = self.fitted[epoch_order(labels, self.settings.sampling, self.generator)]
        if self._done:
            self.generator.set_state(now)
        return order

    def _measured(self, loss: float, held_out: NDArray[np.int64]) -> EpochFigures:
        """Return the figures of the epoch that has just run."""
        measured = _measure(self.average, self.data, self.preprocess, held_out) if len(held_out) else (None, None)
        return EpochFigures(
            epoch=len(self._results) + 1,
            epochs=self.settings.epochs,
            steps=(len(self._results) + 1) * self.steps,
            lr=self.optimization.lr,
            loss=loss,
            held_out_loss=measured[0],
            held_out_accuracy=measured[1],
            seconds=time.perf_counter() - self._start,
        )

    def _save(self) -> None:
        """Save everything from which a run can continue with the same bits."""
        import torch

        if not self._saved:
            return
        state: dict[str, Any] = {
            "average": tensors_of(self._averaged),
            "best": tensors_of(self.result) if self.settings.patience else {},
            "results": [vars(figures) for figures in self._results],
            "seconds": time.perf_counter() - self._start,
        }
        if not self._is_done:
            state |= {
                "student": tensors_of(self.student),
                "optimization": self.optimization.state_dict(),
                "generators": [torch.get_rng_state(), self.generator.get_state(), self._before_order],
                "gpu_generator": [torch.cuda.get_rng_state(self.device)] if self.device.type == "cuda" else [],
                "epoch": [self._done, self._total],
            }
        self._saved.save(state)
        self._saved_at = time.perf_counter()

    def _load(self, saved: Training) -> None:
        """Continue at a saved state; raises EvidenceError for one that does not fit."""
        import torch

        state = saved.state
        with translated(
            lambda reason: EvidenceError(f"{saved.path} is damaged ({reason}); --force without --resume starts over")
        ):
            put_tensors(self._averaged, state["average"])
            if self.settings.patience:
                put_tensors(self.result, state["best"])
            self._results = [EpochFigures(**figures) for figures in state["results"]]
            self._start -= state["seconds"]
            if not self._is_done:
                put_tensors(self.student, state["student"])
                self.optimization.load_state_dict(state["optimization"])
                everywhere, generator, self._before_order = state["generators"]
                torch.set_rng_state(everywhere)
                for of_gpu in state["gpu_generator"]:
                    torch.cuda.set_rng_state(of_gpu, self.device)
                self.generator.set_state(generator)
                self._done, self._total = state["epoch"]

    def step(self, indices: NDArray[np.int64]) -> float:
        """Fit one batch, given by its indices in the data, and return its loss."""
        import torch

        images = distorted(torch.from_numpy(self.data.images[indices]), self.settings, self.generator)
        images, mix = mixed(images, self.settings.mixup, self.generator)
        glyphs = images.numpy()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16"):
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


def _trainable(module: nn.Module, device: torch.device) -> nn.Module:
    student = copy.deepcopy(module).requires_grad_(True)
    return student.to(device, memory_format=memory_format(student))  # type: ignore[call-overload,no-any-return] # torch types only the other calls


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


def _measure(
    module: nn.Module, data: Dataset, preprocess: Preprocess, indices: NDArray[np.int64]
) -> tuple[float, float]:
    """Return the mean cross-entropy of those images, and the share of them that the module classifies correctly."""
    import torch
    from torch.nn.functional import cross_entropy

    loss, correct, first = 0.0, 0, preprocess.label_offset
    with torch.inference_mode():
        for batch in np.array_split(indices, math.ceil(len(indices) / 1000)):
            logits = module(as_tensor(module, preprocess.apply(data.images[batch])))
            answers = logits[:, first : first + len(data.classes)]
            labels = torch.from_numpy(data.labels[batch]).to(answers.device)
            loss += float(cross_entropy(answers, labels, reduction="sum"))
            correct += int((answers.argmax(1) == labels).sum())
    return loss / len(indices), correct / len(indices)

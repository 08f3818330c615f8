"""train: fit a reference model from random weights, and save it as a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calibration.dataset import Dataset
from calibration.errors import EmptyData
from targets.preprocess import Preprocess
from toolchain import models
from toolchain.core.context import RunContext
from toolchain.core.errors import StageError, UsageProblem
from toolchain.core.quantities import counted
from toolchain.core.resume import may_replace, resumable
from toolchain.models.saving import refuse_unfit, save
from toolchain.training.device import device_name, torch_threads, training_device
from toolchain.training.fit import EpochResult, accuracy, fit, hold_out
from toolchain.training.log import COLUMNS, EpochFigures
from toolchain.training.presets import preset_for
from toolchain.training.resume import inputs_of
from toolchain.training.settings import TrainSettings
from toolchain.training.stopping import best_epoch

if TYPE_CHECKING:
    from torch import nn

    from toolchain.training.transfer import Frozen, Start

__all__ = ["EpochResult", "TrainResult", "train"]


@dataclass(frozen=True)
class TrainResult:
    """A finished training.

    module: averaged weights, in eval mode. epochs: one result each. test_accuracy: of the last epoch's weights, None
    without a test split. out: the file with the weights. facts: the description that the file holds.
    """

    module: nn.Module
    preprocess: Preprocess
    epochs: tuple[EpochFigures, ...]
    test_accuracy: float | None
    out: Path | None
    facts: dict[str, Any]

    @property
    def parameters(self) -> int:
        """Return the number of parameters."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    def to_dict(self) -> dict[str, Any]:
        """Return what `--json` prints, as JSON types."""
        epochs = [{name: getattr(epoch, name) for name in COLUMNS} for epoch in self.epochs]
        return self.facts | {"out": str(self.out), "parameters": self.parameters, "epochs": epochs}


def train(
    data: Dataset,
    *,
    model: str | nn.Module = "cnn-small",
    settings: TrainSettings | None = None,
    preprocess: Preprocess | None = None,
    start: Start | None = None,
    test: Dataset | None = None,
    out: Path | None = None,
    on_epoch: Callable[[EpochResult], None] | None = None,
    context: RunContext,
) -> TrainResult:
    """Fit `model` (a name, or a module, which is copied) to a train split and return the averaged weights.

    settings: by default the preset of the model, or one for that many images. start: weights to start from, in place of
    `model` and `preprocess`, made for the classes of `data`. out: rewritten whole after each epoch, so that an
    interruption (KeyboardInterrupt, whose message names the file) or a diverging loss (StageError) leaves the last good
    epoch; a killed run can be continued (`resumable`). The result is the last epoch, with early stopping the best one
    on held-out images. Otherwise no epoch is selected: the accuracy on held-out images is only shown. `test` is
    evaluated once, at the end. Raises UsageProblem for a test split of other classes, EmptyData for a class without
    training images.
    """
    if out:
        refuse_unfit(out, force=may_replace(out, context))
    if settings is None:
        default = preset_for(len(data), model if isinstance(model, str) else "")
        settings = with_batch_that_fits(default, data, context.seed)
    preprocess = start.preprocess if start else preprocess or Preprocess()
    if test is not None and test.classes != data.classes:
        raise UsageProblem(f"{test.origin} has other classes than {data.origin}; name two splits of one data set")
    refuse_empty_classes(data)
    data = data.in_memory()
    fitted_indices, held_out = hold_out(data, settings.held_out, context.seed)
    _refuse_pointless(settings, start, len(fitted_indices))
    module = start.module if start else _module(model, data, preprocess, context.seed)
    device = device_name(training_device(settings.device))
    facts = _facts(module, data, preprocess, settings, context.seed) | {"device": device}
    facts |= {"start": start.facts} if start else {}
    with resumable(out, context) if out else nullcontext(context) as run:
        if out:
            run.say(
                f"{facts['model']} on {len(data):,} images{_held_out_text(data, held_out)}: {settings.summary()}; "
                f"computed on {device}"
            )
        frozen = start.frozen if start else None
        fitted, epochs = _fitted(
            module, data, preprocess, settings, frozen=frozen, facts=facts, out=out, on_epoch=on_epoch, context=run
        )
        facts |= _progress_facts(_result(epochs, settings))
        test_accuracy = None
        if test is not None:
            test_accuracy = accuracy(fitted, test, preprocess, threads=run.threads)
            facts["test"] = data_facts(test) | {"right": round(test_accuracy * len(test)), "accuracy": test_accuracy}
            if out:
                save(out, fitted, facts, force=True)
    return TrainResult(fitted, preprocess, epochs, test_accuracy, out, facts)


def training_inputs(
    data: Dataset,
    *,
    model: str,
    settings: TrainSettings,
    preprocess: Preprocess | None,
    start: Start | None,
    context: RunContext,
) -> dict[str, str]:
    """Return all that the result of `train` with these arguments depends on, by name, as `inputs_of` does."""
    preprocess = start.preprocess if start else preprocess or Preprocess()
    module = start.module if start else _module(model, data, preprocess, context.seed)
    frozen = start.frozen if start else None
    device = device_name(training_device(settings.device))
    with torch_threads(context.threads):
        inputs = inputs_of(module, data, preprocess, settings, lesson=None, frozen=frozen, seed=context.seed)
    return inputs | {"computed on": device}


def _fitted(
    module: nn.Module,
    data: Dataset,
    preprocess: Preprocess,
    settings: TrainSettings,
    *,
    frozen: Frozen | None,
    facts: dict[str, Any],
    out: Path | None,
    on_epoch: Callable[[EpochResult], None] | None,
    context: RunContext,
) -> tuple[nn.Module, tuple[EpochFigures, ...]]:
    """Return the fitted module and its epochs, each of which was written to `out` with `facts`."""
    done: list[EpochFigures] = []

    def save_epoch(epoch: EpochResult) -> None:
        now = (*epoch.earlier, epoch)
        if out:
            progress_facts = _progress_facts(_result(now, settings))
            save(out, epoch.module, facts | progress_facts, force=context.force or bool(done))
        done[:] = now
        if on_epoch:
            on_epoch(epoch)

    try:
        fitted = fit(module, data, preprocess, settings, frozen=frozen, on_epoch=save_epoch, context=context)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"interrupted; {_saved_text(out, done, settings, context)}") from stop
    except StageError as error:
        raise StageError(f"{error}; {_saved_text(out, done, settings, context)}") from error
    except OSError as error:
        # A file beside the weights, such as a log or the state.
        raise StageError(
            f"{error.filename2 or error.filename} could not be written ({error.strerror}); name another place, or free "
            f"some space; {_saved_text(out, done, settings, context)}"
        ) from error
    return fitted, tuple(done)


def with_batch_that_fits(settings: TrainSettings, data: Dataset, seed: int) -> TrainSettings:
    """Return the settings with a batch of at most as many images as are fitted: for one that nobody asked for."""
    fitted, _ = hold_out(data, settings.held_out, seed)
    return settings.changed(batch=max(2, min(settings.batch, len(fitted))))


def _held_out_text(data: Dataset, held_out: NDArray[np.int64]) -> str:
    """Return how many images are held out, and of which classes none, since they have one different image only."""
    if not len(held_out):
        return ""
    absent = [f"'{name}'" for label, name in enumerate(data.classes) if label not in data.labels[held_out]]
    without = f", none of {', '.join(absent[:10])}: a single different image is fitted" if absent else ""
    return f" ({len(held_out):,} held out{without})"


def refuse_empty_classes(data: Dataset) -> None:
    """Raise EmptyData where a class has no image: a model would have an output for it that it never learned."""
    counts = np.bincount(data.labels, minlength=len(data.classes))
    if absent := [f"'{name}'" for name, count in zip(data.classes, counts, strict=True) if not count]:
        raise EmptyData(
            f"{data.origin} has no image of class {', '.join(absent[:10])}; "
            "add some, or choose the other classes with --classes"
        )


def _refuse_pointless(settings: TrainSettings, start: Start | None, fitted: int) -> None:
    if settings.batch > fitted:
        raise UsageProblem(f"`batch` {settings.batch} is more than the {fitted} images to fit; give {fitted} or fewer")
    frozen = start.frozen if start else None
    if frozen and frozen.epochs and frozen.epochs >= settings.epochs:
        raise UsageProblem(
            f"`freeze_epochs` {frozen.epochs} is the whole training of {counted(settings.epochs, 'epoch')}; "
            "give fewer, or leave it out to freeze for all"
        )


def _module(model: str | nn.Module, data: Dataset, preprocess: Preprocess, seed: int) -> nn.Module:
    import torch

    if not isinstance(model, str):
        return model
    if preprocess.label_offset:
        raise UsageProblem(
            f"`label_offset` {preprocess.label_offset} is for a checkpoint that has columns before its first class; a "
            "new model has none, so leave it out"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return models.build(model, classes=len(data.classes))


def _facts(
    module: nn.Module, data: Dataset, preprocess: Preprocess, settings: TrainSettings, seed: int
) -> dict[str, Any]:
    name, options = models.reference_of(module) or (type(module).__name__, {})
    return {
        "model": name,
        "options": options,
        "classes": list(data.classes),
        "preprocess": preprocess.to_dict(),
        "settings": settings.to_dict(),
        "seed": seed,
        "data": data_facts(data),
    }


def data_facts(data: Dataset) -> dict[str, Any]:
    """Return what a trained file says about its images, as JSON types."""
    return {"origin": data.origin, "sha256": data.sha256, "images": len(data)}


def _progress_facts(epoch: EpochFigures) -> dict[str, Any]:
    return {"epoch": epoch.epoch, "held_out_accuracy": epoch.held_out_accuracy}


def _result(done: Sequence[EpochFigures], settings: TrainSettings) -> EpochFigures:
    """Return the epoch whose weights are the result."""
    return done[best_epoch([epoch.held_out_accuracy for epoch in done]) - 1] if settings.patience else done[-1]


def _saved_text(out: Path | None, done: Sequence[EpochFigures], settings: TrainSettings, context: RunContext) -> str:
    if done:
        is_written = f"{out} holds epoch {_result(done, settings).epoch} of {done[-1].epochs}"
        return is_written if out else "nothing was written"
    if context.trainings and context.trainings.path.exists():
        return f"{context.trainings.path} is as it was"
    return "no epoch was saved, so nothing was written"

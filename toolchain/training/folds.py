"""K-fold cross-validation: how accurate a configuration is on images it was not fitted to, and how that varies."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.dataset import Dataset, Images, Labels
from calibration.sample import image_hashes
from targets.errors import translated
from toolchain.core.context import RunContext
from toolchain.core.errors import EvidenceError, GlyphpressError, UsageProblem
from toolchain.core.trainings import Training
from toolchain.stats.share import wilson
from toolchain.training.train import TrainResult

TrainFold = Callable[[Dataset, Dataset, RunContext], TrainResult]
"""`train_fold(fitted, held_out, context)`: train on `fitted`, measure on `held_out`, and write nothing."""


@dataclass(frozen=True)
class FoldResult:
    """One fit. fold: from 1. fitted, images: numbers of images fitted and held out. right: of those held out.

    seconds: of its epochs, without those between a kill and the resumed run.
    """

    fold: int
    seed: int
    fitted: int
    images: int
    right: int
    seconds: float

    @property
    def accuracy(self) -> float:
        """Return the share of the held-out images that the fit reads correctly."""
        return self.right / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """Return the 95 % Wilson interval of the accuracy."""
        return wilson(self.right, self.images)


@dataclass(frozen=True)
class CrossValidation:
    """The fits of a configuration, one for each fold.

    origin, sha256: of the images. The fits share most of their images, so the standard deviation between folds is
    smaller than that between fits to independent images (Bengio and Grandvalet, JMLR 5, 2004).
    """

    folds: tuple[FoldResult, ...]
    origin: str
    sha256: str

    @property
    def mean(self) -> float:
        """Return the mean accuracy over the folds."""
        return statistics.fmean(fold.accuracy for fold in self.folds)

    @property
    def deviation(self) -> float:
        """Return the sample standard deviation of the folds' accuracies."""
        return statistics.stdev(fold.accuracy for fold in self.folds)

    @property
    def spread(self) -> tuple[float, float]:
        """Return the lowest and the highest accuracy of a fold."""
        accuracies = [fold.accuracy for fold in self.folds]
        return min(accuracies), max(accuracies)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON types."""
        folds = [
            {
                "fold": fold.fold,
                "seed": fold.seed,
                "fitted": fold.fitted,
                "images": fold.images,
                "right": fold.right,
                "accuracy": fold.accuracy,
                "interval": list(fold.interval),
                "seconds": fold.seconds,
            }
            for fold in self.folds
        ]
        return {
            "data": {"origin": self.origin, "sha256": self.sha256, "images": sum(fold.images for fold in self.folds)},
            "folds": folds,
            "mean": self.mean,
            "deviation": self.deviation,
            "spread": list(self.spread),
        }


def cross_validate(
    data: Dataset,
    folds: int,
    train_fold: TrainFold,
    *,
    inputs: Mapping[str, str] | None = None,
    on_fold: Callable[[FoldResult], None] | None = None,
    context: RunContext,
) -> CrossValidation:
    """Fit a configuration once for each fold, to all images but those of the fold, and measure it on the fold.

    Each fit has a seed of its own, derived from the context's. Progress covers all folds. inputs: all that the fits
    depend on, by name, for `context.trainings`, which keep the folds that are done. Raises UsageProblem as
    `assign_folds` does, and for the state of another training; an error or interruption of a fit says in which fold it
    happened.
    """
    assigned = assign_folds(data.images[:], data.labels, data.classes, folds, context.seed)
    saved = context.trainings.begin({"folds": str(folds), **(inputs or {})}) if context.trainings else None
    results = _done(saved) if saved else []
    if on_fold:
        for result in results:
            on_fold(result)
    for number in range(len(results) + 1, folds + 1):
        held_out = data.take(np.flatnonzero(assigned == number - 1), f"fold {number} of {folds}")
        fitted = data.take(np.flatnonzero(assigned != number - 1), f"without fold {number} of {folds}")
        seed = int(np.random.SeedSequence([context.seed, number]).generate_state(1)[0])
        with_label = replace(context, seed=seed, progress=_over_folds(context, number, folds))
        try:
            trained = train_fold(fitted, replace(held_out, split="test"), with_label)
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt(f"interrupted in fold {number} of {folds}; no model was written") from stop
        except GlyphpressError as error:
            raise type(error)(f"fold {number} of {folds}: {error}") from error
        right, seconds = trained.facts["test"]["right"], trained.epochs[-1].seconds
        results.append(FoldResult(number, seed, len(fitted), len(held_out), right, seconds))
        if saved:
            saved.absorb({"folds": [vars(result) for result in results]})
        if on_fold:
            on_fold(results[-1])
    return CrossValidation(tuple(results), data.origin, data.sha256)


def _done(saved: Training) -> list[FoldResult]:
    """Return the folds that a killed run has done; raises EvidenceError for a state that holds none such."""
    with translated(
        lambda reason: EvidenceError(f"{saved.path} is damaged ({reason}); --force without --resume starts over")
    ):
        return [FoldResult(**fold) for fold in saved.state.get("folds", [])]


def assign_folds(images: Images, labels: Labels, classes: tuple[str, ...], folds: int, seed: int) -> NDArray[np.int64]:
    """Return int64 [N]: the fold of each image, from 0, with each class spread evenly over the folds.

    Equal images share a fold, since a model fitted to one of them would already know the others. Raises UsageProblem
    for fewer than two folds, and for more than the rarest class has different images.
    """
    if folds < 2:
        raise UsageProblem(
            f"{folds} folds are not possible, since each is measured by a fit to the others; give 2 or more"
        )
    _, first, group, sizes = np.unique(image_hashes(images), return_index=True, return_inverse=True, return_counts=True)
    group_labels = labels[first]
    counts = np.bincount(group_labels, minlength=len(classes))
    rarest = int(counts.argmin())
    if counts[rarest] < folds:
        raise UsageProblem(
            f"{folds} folds need {folds} different images of each class, and class '{classes[rarest]}' has "
            f"{counts[rarest]}; {_fewer(int(counts[rarest]))}"
        )
    # Dealt in turns, class after class and without starting again, so that folds differ by one image. Groups of many
    # equal images come first, so that they do not all meet in one fold.
    shuffled = np.random.default_rng(seed).permutation(len(first))
    order = shuffled[np.lexsort((-sizes[shuffled], group_labels[shuffled]))]
    fold_of_group = np.empty(len(first), np.int64)
    fold_of_group[order] = np.arange(len(first)) % folds
    return fold_of_group[group]


def _fewer(images: int) -> str:
    return f"give --folds {images} or fewer" if images >= 2 else "add images of it, or leave it out with --classes"


def _over_folds(context: RunContext, number: int, folds: int) -> Callable[[str, int, int], None]:
    def progress(label: str, done: int, total: int) -> None:
        context.progress(label, (number - 1) * total + done, folds * total)

    return progress

"""K-fold cross-validation: how accurate a configuration is on images it was not fitted to, and how that varies."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.dataset import Dataset, Images, Labels
from calibration.sample import image_hashes
from toolchain.core.context import RunContext
from toolchain.core.errors import GlyphpressError, UsageProblem
from toolchain.evaluation.metrics import wilson
from toolchain.training.train import TrainResult

TrainFold = Callable[[Dataset, Dataset, RunContext], TrainResult]
"""`train_fold(fitted, held_out, context)`: train on `fitted`, measure on `held_out`, and write nothing."""


@dataclass(frozen=True)
class FoldResult:
    """One fit. fold: from 1. fitted, images: numbers of images fitted and held out. right: of those held out."""

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
    on_fold: Callable[[FoldResult], None] | None = None,
    context: RunContext,
) -> CrossValidation:
    """Fit a configuration once for each fold, to all images but those of the fold, and measure it on the fold.

    Each fit has a seed of its own, derived from the context's. Progress covers all folds. Raises UsageProblem as
    `assign_folds` does; an error or interruption of a fit says in which fold it happened.
    """
    assigned = assign_folds(data.images[:], data.labels, data.classes, folds, context.seed)
    results: list[FoldResult] = []
    for number in range(1, folds + 1):
        held_out = data.take(np.flatnonzero(assigned == number - 1), f"fold {number} of {folds}")
        fitted = data.take(np.flatnonzero(assigned != number - 1), f"without fold {number} of {folds}")
        seed = int(np.random.SeedSequence([context.seed, number]).generate_state(1)[0])
        start = time.perf_counter()
        with_label = replace(context, seed=seed, progress=_over_folds(context, number, folds))
        try:
            trained = train_fold(fitted, replace(held_out, split="test"), with_label)
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt(f"interrupted in fold {number} of {folds}; nothing was written") from stop
        except GlyphpressError as error:
            raise type(error)(f"fold {number} of {folds}: {error}") from error
        right, seconds = trained.facts["test"]["right"], time.perf_counter() - start
        results.append(FoldResult(number, seed, len(fitted), len(held_out), right, seconds))
        if on_fold:
            on_fold(results[-1])
    return CrossValidation(tuple(results), data.origin, data.sha256)


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

"""Comparison: two evaluations of the same images, paired image by image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toolchain.core.quantities import percent_text
from toolchain.evaluation.evaluate import Evaluation
from toolchain.evaluation.metrics import confusion_matrix
from toolchain.evaluation.paired_answers import Answers, Pairs
from toolchain.stats import paired_difference

CONFIDENCE = 0.95


@dataclass(frozen=True)
class ClassDrop:
    """What one class lost and gained. drop: share of its images, positive when the candidate reads worse."""

    label: str
    images: int
    lost: int
    gained: int
    drop: float


@dataclass(frozen=True)
class NewConfusion:
    """`extra` more images of `truth` are read as `read` by the candidate than by the baseline."""

    truth: str
    read: str
    extra: int

    def __str__(self) -> str:
        """Return `O read as 0: +14`."""
        return f"{self.truth} read as {self.read}: +{self.extra}"


@dataclass(frozen=True)
class Comparison:
    """How a candidate reads the images that its baseline read.

    lost, gained: images that only the baseline, only the candidate reads rightly. flips: images whose answer changed
    at all. drop: fall in accuracy, a fraction, positive when the candidate reads worse. interval: its two-sided 95 %
    Tango score interval. lower, upper: its one-sided 95 % bounds. per_class: in the order of the classes.
    confusions: the most frequent new ones first. baseline_input, candidate_input: how each file wants its images and
    what said so, in words, empty where that was not recorded.
    """

    baseline: str
    baseline_sha256: str
    baseline_bytes: int
    candidate: str
    candidate_sha256: str
    candidate_bytes: int
    origin: str
    dataset_sha256: str
    images: int
    lost: int
    gained: int
    flips: int
    baseline_accuracy: float
    candidate_accuracy: float
    drop: float
    interval: tuple[float, float]
    lower: float
    upper: float
    per_class: tuple[ClassDrop, ...]
    confusions: tuple[NewConfusion, ...]
    baseline_input: str = ""
    candidate_input: str = ""

    @property
    def discordance(self) -> float:
        """The share of images that only one of the two reads rightly."""
        return (self.lost + self.gained) / self.images

    def worst(self, count: int = 5) -> tuple[ClassDrop, ...]:
        """Return the classes that lost the most images on balance, worst first; none that did not lose any."""
        losers = [row for row in self.per_class if row.drop > 0]
        return tuple(sorted(losers, key=lambda row: (row.gained - row.lost, -row.drop))[:count])


def compare(base: Evaluation, candidate: Evaluation, *, confusions: int = 10) -> Comparison:
    """Pair two evaluations image by image; raises EvidenceError as `Pairs.of` does."""
    return comparison(Pairs.of(base, candidate), confusions=confusions)


def comparison(pairs: Pairs, *, confusions: int = 10) -> Comparison:
    """Return what the pairs say of accuracy, with the `confusions` most frequent new ones."""
    n, b, c = len(pairs), int(pairs.lost.sum()), int(pairs.gained.sum())
    return Comparison(
        baseline=pairs.baseline.name,
        baseline_sha256=pairs.baseline.sha256,
        baseline_bytes=pairs.baseline.bytes,
        candidate=pairs.candidate.name,
        candidate_sha256=pairs.candidate.sha256,
        candidate_bytes=pairs.candidate.bytes,
        origin=pairs.origin,
        dataset_sha256=pairs.dataset_sha256,
        images=n,
        lost=b,
        gained=c,
        flips=int(pairs.flipped.sum()),
        baseline_accuracy=_accuracy(pairs, pairs.before),
        candidate_accuracy=_accuracy(pairs, pairs.after),
        drop=(b - c) / n,
        interval=paired_difference.interval(b, c, n, CONFIDENCE),
        lower=float(paired_difference.lower_bound(b, c, n, CONFIDENCE)),
        upper=float(paired_difference.upper_bound(b, c, n, CONFIDENCE)),
        per_class=_per_class(pairs),
        confusions=_new_confusions(pairs, confusions),
        baseline_input=pairs.baseline.input,
        candidate_input=pairs.candidate.input,
    )


def _accuracy(pairs: Pairs, answers: Answers) -> float:
    return float(np.count_nonzero(answers == pairs.labels)) / len(pairs)


def _per_class(pairs: Pairs) -> tuple[ClassDrop, ...]:
    size = len(pairs.classes)
    chosen = (slice(None), pairs.lost, pairs.gained)
    images, away, back = (np.bincount(pairs.labels[selected], minlength=size) for selected in chosen)
    return tuple(
        ClassDrop(label, int(n), int(b), int(c), float(b - c) / max(int(n), 1))
        for label, n, b, c in zip(pairs.classes, images, away, back, strict=True)
    )


def _new_confusions(pairs: Pairs, count: int) -> tuple[NewConfusion, ...]:
    size, classes = len(pairs.classes), pairs.classes
    before, after = (confusion_matrix(pairs.labels, answers, size) for answers in (pairs.before, pairs.after))
    extra = after - before
    np.fill_diagonal(extra, 0)
    order = np.argsort(-extra, axis=None, kind="stable")[:count]
    label_pairs = ((int(i) // size, int(i) % size) for i in order)
    return tuple(NewConfusion(classes[i], classes[j], int(extra[i, j])) for i, j in label_pairs if extra[i, j] > 0)


@dataclass(frozen=True)
class ComparedModels:
    """How a model reads after a step beside the model before it, `base`, on `images` images of `origin`.

    agreement: share of equal answers. base_accuracy, accuracy: before and after.
    """

    base: str
    images: int
    origin: str
    agreement: float
    base_accuracy: float
    accuracy: float

    def __str__(self) -> str:
        """Return `against cnn-small: 97.7 % equal answers, accuracy 89.36 % before and 88.96 % after, on ...`."""
        before, after = percent_text(self.base_accuracy), percent_text(self.accuracy)
        # What is not all is never rounded up to all.
        equal = "100 %" if self.agreement == 1 else percent_text(min(self.agreement, 0.999), 1)
        return (
            f"against {self.base}: {equal} equal answers, accuracy {before} before and {after} after, on "
            f"{self.images:,} images of {self.origin}"
        )

"""Metrics of one evaluation: accuracy and its interval, precision, recall, F1, confusions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from toolchain.core.quantities import percent_text
from toolchain.evaluation.class_groups import Counts, GroupMetrics, kinds, look_alikes
from toolchain.evaluation.evaluate import Evaluation
from toolchain.stats.share import wilson


@dataclass(frozen=True)
class ClassMetrics:
    """Metrics of one class. recall is None if it has no images, precision None if it was never answered.

    misread: the wrong answers to its images and how often each was given, the most frequent first.
    """

    label: str
    images: int
    answered: int
    right: int
    precision: float | None
    recall: float | None
    f1: float
    misread: dict[str, int]


@dataclass(frozen=True)
class Confusion:
    """`count` images of `truth` were read as `read`."""

    truth: str
    read: str
    count: int


@dataclass(frozen=True)
class Averages:
    """Precision, recall and F1 over all classes."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Metrics:
    """Everything `evaluate` shows. confusion: int64 [K, K], rows the truth, columns the answer.

    images: the different ones, each counted once; copies: how many more there were that equal one of them. kappa: of
    answers and labels (`cohen_kappa`). kinds, look_alikes: `toolchain.evaluation.class_groups`.
    """

    images: int
    right: int
    accuracy: float
    interval: tuple[float, float]
    macro: Averages
    micro: Averages
    per_class: tuple[ClassMetrics, ...]
    confusions: tuple[Confusion, ...]
    confusion: Counts
    kappa: float | None
    kinds: tuple[GroupMetrics, ...]
    look_alikes: tuple[GroupMetrics, ...]
    copies: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        return asdict(self) | {"confusion": self.confusion.tolist()}


@dataclass(frozen=True)
class Hypothesis:
    """The claim that a file reads at least this share of such images, and whether the images accept or reject it.

    interval: the two-sided 95 % score interval of the accuracy (`wilson`). A claim at or below all of it is accepted,
    one above all of it is rejected, and one inside it is undecided.
    """

    accuracy_claimed: float
    accuracy: float
    images: int
    interval: tuple[float, float]
    verdict: Literal["accepted", "rejected", "undecided"]

    @classmethod
    def test(cls, claim: float, metrics: Metrics) -> Hypothesis:
        """Judge the claim by the metrics of an evaluation."""
        claim = round(claim, 12)  # 95% is read as 0.9500000000000001
        low, high = metrics.interval
        verdict: Literal["accepted", "rejected", "undecided"] = "undecided"
        if claim <= low:
            verdict = "accepted"
        elif claim > high:
            verdict = "rejected"
        return cls(claim, metrics.accuracy, metrics.images, metrics.interval, verdict)

    def sentence(self) -> str:
        """Return the verdict with what it rests on."""
        low, high = map(percent_text, self.interval)
        return (
            f"an accuracy of at least {percent_text(self.accuracy_claimed)} is {self.verdict}: "
            f"{percent_text(self.accuracy)} of {self.images:,} images, 95 % interval {low} to {high}"
        )


def confusion_matrix(labels: Counts, predictions: Counts, classes: int) -> Counts:
    """Return int64 [K, K]: rows the truth, columns the answer."""
    flat = np.bincount(labels * classes + predictions, minlength=classes * classes)
    return flat.reshape(classes, classes).astype(np.int64)


def cohen_kappa(matrix: Counts) -> float | None:
    """Return the agreement of rows and columns beyond chance (J. Cohen 1960, Educ. Psychol. Meas. 20:37-46).

    1: they always agree; 0: no more than by chance; None where both always name the same single class.
    """
    total = matrix.sum()
    by_chance = float(matrix.sum(0) @ matrix.sum(1)) / float(total) ** 2
    return None if by_chance == 1 else (float(np.trace(matrix)) / float(total) - by_chance) / (1 - by_chance)


def measure(evaluation: Evaluation) -> Metrics:
    """Return the metrics of an evaluation.

    Macro averages are over the classes that have images or were answered. An undefined precision or recall counts as 0
    (scikit-learn's `zero_division=0`), so a class that is never answered lowers the average. Each different image
    counts once (`Evaluation.once`).
    """
    copies, evaluation = len(evaluation) - len(evaluation.once), evaluation.once
    matrix = confusion_matrix(evaluation.labels, evaluation.predictions, len(evaluation.classes))
    per_class = tuple(_class_metrics(evaluation.classes, matrix, k) for k in range(len(evaluation.classes)))
    used = [row for row in per_class if row.images or row.answered]
    right, images = int(np.trace(matrix)), int(matrix.sum())
    accuracy = right / images
    return Metrics(
        images=images,
        right=right,
        accuracy=accuracy,
        interval=wilson(right, images),
        macro=Averages(
            _mean([row.precision or 0.0 for row in used]),
            _mean([row.recall or 0.0 for row in used]),
            _mean([row.f1 for row in used]),
        ),
        # With one answer per image, every micro average is the accuracy.
        micro=Averages(accuracy, accuracy, accuracy),
        per_class=per_class,
        confusions=tuple(Confusion(*row) for row in most_confused(matrix, evaluation.classes)),
        confusion=matrix,
        kappa=cohen_kappa(matrix),
        kinds=kinds(matrix, evaluation.classes),
        look_alikes=look_alikes(matrix, evaluation.classes),
        copies=copies,
    )


def _class_metrics(classes: tuple[str, ...], matrix: Counts, k: int) -> ClassMetrics:
    right, images, answered = int(matrix[k, k]), int(matrix[k].sum()), int(matrix[:, k].sum())
    wrong = [answer for answer in np.argsort(-matrix[k], kind="stable") if answer != k and matrix[k, answer]]
    return ClassMetrics(
        label=classes[k],
        images=images,
        answered=answered,
        right=right,
        precision=right / answered if answered else None,
        recall=right / images if images else None,
        f1=2 * right / (images + answered) if images + answered else 0.0,
        misread={classes[answer]: int(matrix[k, answer]) for answer in wrong},
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def most_confused(matrix: Counts, classes: tuple[str, ...]) -> Iterator[tuple[str, str, int]]:
    """Yield truth, answer and number of the ten largest positive entries off the diagonal, largest first."""
    wrong = matrix * (1 - np.eye(len(classes), dtype=np.int64))
    for position in np.argsort(-wrong, axis=None, kind="stable")[:10]:
        truth, answer = divmod(int(position), len(classes))
        if wrong[truth, answer] > 0:
            yield classes[truth], classes[answer], int(wrong[truth, answer])

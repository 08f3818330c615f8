"""The images that a file reads wrongly, those of which it was surest first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolchain.evaluation.evaluate import Evaluation, distinct_rows


@dataclass(frozen=True)
class Mistake:
    """An image that was read wrongly.

    index: its position in the data set, from 0. confidence: the probability of the wrong answer; truth_confidence:
    that of the truth.
    """

    index: int
    truth: str
    read: str
    confidence: float
    truth_confidence: float


def surest_mistakes(evaluation: Evaluation, most: int) -> tuple[Mistake, ...]:
    """Return at most so many mistakes on different images, the most confident one first."""
    return _mistakes(evaluation, _wrong_rows(evaluation)[:most])


def mistakes_of(evaluation: Evaluation, truth: str, read: str, most: int) -> tuple[Mistake, ...]:
    """Return mistakes of one kind, as `surest_mistakes` does."""
    rows = _wrong_rows(evaluation)
    kind = (evaluation.labels[rows] == evaluation.classes.index(truth)) & (
        evaluation.predictions[rows] == evaluation.classes.index(read)
    )
    return _mistakes(evaluation, rows[kind][:most])


def _wrong_rows(evaluation: Evaluation) -> NDArray[np.int64]:
    rows = distinct_rows(evaluation.sample_ids, evaluation.right)
    rows = rows[~evaluation.right[rows]]
    return rows[np.argsort(-evaluation.confidence[rows], kind="stable")]


def _mistakes(evaluation: Evaluation, rows: NDArray[np.int64]) -> tuple[Mistake, ...]:
    truths = evaluation.probabilities(rows)[np.arange(len(rows)), evaluation.labels[rows]]
    return tuple(
        Mistake(
            int(row),
            evaluation.classes[evaluation.labels[row]],
            evaluation.classes[evaluation.predictions[row]],
            float(evaluation.confidence[row]),
            float(truth),
        )
        for row, truth in zip(rows, truths, strict=True)
    )

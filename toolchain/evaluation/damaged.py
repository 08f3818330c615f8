"""Answers under scanner damage: what one file reads in images that were damaged by seed (`calibration.corrupt`).

Each kind of damage is read once, every image at one strength; strengths go round over the images of each class. So a
kind is one paired question on all images, and costs one evaluation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from calibration.corrupt import damage, strengths_in_turn
from calibration.dataset import Dataset
from targets.session import Session
from toolchain.core.context import Progress, silent
from toolchain.evaluation.compare import Answers
from toolchain.evaluation.evaluate import check_classes

_BATCH = 256


class Damage(Protocol):
    """Which damage is asked for: the kinds, the strengths that go round over the images, and the seed of its chance."""

    @property
    def kinds(self) -> Sequence[str]:
        """The kinds of damage."""
        ...

    @property
    def strengths(self) -> Sequence[int]:
        """The strengths, 1 to 5."""
        ...

    @property
    def seed(self) -> int:
        """The seed of its chance."""
        ...


@dataclass(frozen=True, eq=False)
class StressAnswers:
    """What one file answered on the test images under one kind of damage.

    strengths: int64 [N], that of each image. answers: int64 [N]. sha256: digest of the damaged images.
    """

    kind: str
    seed: int
    strengths: NDArray[np.int64] = field(repr=False)
    answers: Answers = field(repr=False)
    sha256: str


def answers_under(
    asked: Damage, session: Session, dataset: Dataset, *, progress: Progress = silent
) -> tuple[StressAnswers, ...]:
    """Read the data set once under each kind of damage; strengths go round over the images, drawn by the seed.

    Raises EvidenceError for other classes than the file's, RunFailed from the session.
    """
    check_classes(session.artifact.path.name, session.artifact.classes, dataset)
    return tuple(_under(kind, asked, session, dataset, progress) for kind in dict.fromkeys(asked.kinds))


def _under(kind: str, asked: Damage, session: Session, dataset: Dataset, progress: Progress) -> StressAnswers:
    count = len(dataset)
    strengths = strengths_in_turn(dataset.images, dataset.labels, kind, asked.seed, in_turn(asked))
    answers = np.empty(count, np.int64)
    digest = hashlib.sha256()
    for start in range(0, count, _BATCH):
        chunk = slice(start, min(start + _BATCH, count))
        damaged = damage(dataset.images[chunk], kind, strengths[chunk], asked.seed)
        digest.update(damaged.data)
        answers[chunk] = session.run(damaged).argmax(axis=1)
        progress(f"stress {kind}", chunk.stop, count)
    return StressAnswers(kind, asked.seed, strengths, answers, digest.hexdigest())


def in_turn(asked: Damage) -> tuple[int, ...]:
    """Return the strengths in the order in which they go round."""
    return tuple(sorted(set(asked.strengths)))

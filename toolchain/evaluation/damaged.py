"""Answers under scanner damage: what one file reads in images with seeded damage (`calibration.corrupt`).

Each kind of damage is one evaluation of all images. Each image has one strength; the images of a class take the
strengths in turn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from calibration.corrupt import damage, strengths_in_turn
from calibration.dataset import Dataset, chunks
from targets.session import Session
from toolchain.core.context import Progress, silent
from toolchain.evaluation.compare import Answers
from toolchain.evaluation.evaluate import columns_of

_BATCH = 256


class Damage(Protocol):
    """The damage to apply: its kinds, the strengths that images take in turn, and the seed."""

    @property
    def kinds(self) -> Sequence[str]:
        """Names in `calibration.corrupt.KINDS`."""

    @property
    def strengths(self) -> Sequence[int]:
        """Some of 1 to 5."""

    @property
    def seed(self) -> int:
        """The seed of everything random in it."""


@dataclass(frozen=True, eq=False)
class StressAnswers:
    """What one file answered on the test images under one kind of damage.

    strengths, answers: int64 [N]. sha256: digest of the damaged images.
    """

    kind: str
    seed: int
    strengths: NDArray[np.int64] = field(repr=False)
    answers: Answers = field(repr=False)
    sha256: str


def answers_under(
    stress: Damage, session: Session, dataset: Dataset, *, progress: Progress = silent
) -> tuple[StressAnswers, ...]:
    """Read the data set once under each kind of damage.

    Raises EvidenceError if the data set has other classes than the file, and RunFailed from the session.
    """
    return tuple(_read_damaged(kind, stress, session, dataset, progress) for kind in dict.fromkeys(stress.kinds))


def _read_damaged(kind: str, stress: Damage, session: Session, dataset: Dataset, progress: Progress) -> StressAnswers:
    count = len(dataset)
    strengths = strengths_in_turn(dataset.images, dataset.labels, kind, stress.seed, in_turn(stress))
    answers = np.empty(count, np.int64)
    digest = hashlib.sha256()
    columns = columns_of(session.artifact.path.name, session.artifact.classes, dataset)
    for chunk in chunks(count, _BATCH):
        damaged = damage(dataset.images[chunk], kind, strengths[chunk], stress.seed)
        digest.update(damaged.data)
        answers[chunk] = session.run(damaged)[:, columns].argmax(axis=1)
        progress(f"stress {kind}", chunk.stop, count)
    return StressAnswers(kind, stress.seed, strengths, answers, digest.hexdigest())


def in_turn(stress: Damage) -> tuple[int, ...]:
    """Return the strengths in the order in which images take them."""
    return tuple(sorted(set(stress.strengths)))

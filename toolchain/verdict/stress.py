"""Stress: the verdict on accuracy again, under seeded scanner damage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.dataset import Dataset, Labels
from targets.target import Session
from toolchain.progress import Progress, silent
from toolchain.verdict.outcome import Verdict
from toolchain.verdict.pairs import Answers
from toolchain.verdict.tables import StressLimit


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


@dataclass(frozen=True, eq=False)
class StressPairs:
    """Both files' answers under one kind of damage; arrays int64 [N], in the order of the undamaged images."""

    kind: str
    seed: int
    strengths: NDArray[np.int64] = field(repr=False)
    before: Answers = field(repr=False)
    after: Answers = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types; `from_dict` is the inverse."""
        raise NotImplementedError

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> StressPairs:
        """Rebuild from `to_dict`; raises EvidenceError on anything else."""
        raise NotImplementedError


def answers_under(
    limit: StressLimit, session: Session, dataset: Dataset, *, progress: Progress = silent
) -> tuple[StressAnswers, ...]:
    """Read the data set once under each kind of damage; strengths go round over the images, drawn by the seed."""
    raise NotImplementedError


def pair_stress(base: tuple[StressAnswers, ...], own: tuple[StressAnswers, ...]) -> tuple[StressPairs, ...]:
    """Pair both files' answers; raises EvidenceError where they saw other damage."""
    raise NotImplementedError


def judge_stress(limit: StressLimit, stress: tuple[StressPairs, ...], labels: Labels) -> Verdict:
    """Judge the fall in accuracy under each kind of damage; the outcome is the worst one's (`several`)."""
    raise NotImplementedError

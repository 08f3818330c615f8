"""Leaks: test images that were seen in training or in calibration, found by hash."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from calibration.dataset import Dataset
from targets.artifact import Artifact
from toolchain.verdict.evaluate import Evaluation
from toolchain.verdict.outcome import Verdict
from toolchain.verdict.tables import LeaksLimit


@dataclass(frozen=True)
class Leaks:
    """How many test images are also training or calibration images, and the first of them by index."""

    test: str
    train: str
    images: int
    training: int
    calibration: int
    first: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types; `from_dict` is the inverse."""
        raise NotImplementedError

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Leaks:
        """Rebuild from `to_dict`; raises EvidenceError on anything else."""
        raise NotImplementedError


def find_leaks(own: Evaluation, train: Dataset, artifact: Artifact) -> Leaks:
    """Look for the test images, by hash, among the train split and the candidate's calibration set."""
    raise NotImplementedError


def judge_leaks(limit: LeaksLimit, leaks: Leaks) -> Verdict:
    """Judge the number of test images that were seen before."""
    raise NotImplementedError

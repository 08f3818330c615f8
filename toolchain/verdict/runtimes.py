"""Runtimes: whether the same file answers alike on other runtimes and other kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from calibration.dataset import Dataset
from targets.artifact import Artifact
from targets.target import RuntimeFacts
from toolchain.progress import Progress, silent
from toolchain.verdict.evaluate import Evaluation
from toolchain.verdict.outcome import Verdict
from toolchain.verdict.tables import RuntimesLimit


@dataclass(frozen=True)
class Difference:
    """An image that two places read differently: its index in the data set, and both answers' class names."""

    image: int
    truth: str
    here: str
    there: str


@dataclass(frozen=True)
class Place:
    """How one place answered, against the place that the candidate was judged on.

    largest: the largest difference of a logit. differences: every image that was answered otherwise.
    """

    runtime: RuntimeFacts
    images: int
    largest: float
    differences: tuple[Difference, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types; `from_dict` is the inverse."""
        raise NotImplementedError

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Place:
        """Rebuild from `to_dict`; raises EvidenceError on anything else."""
        raise NotImplementedError


def answers_elsewhere(
    limit: RuntimesLimit, artifact: Artifact, own: Evaluation, dataset: Dataset, *, progress: Progress = silent
) -> tuple[Place, ...]:
    """Read the data set with the same file on every other place that the limit names."""
    raise NotImplementedError


def judge_runtimes(limit: RuntimesLimit, places: tuple[Place, ...]) -> Verdict:
    """Judge the number of images that are answered otherwise, at most `limit.max` a place."""
    raise NotImplementedError

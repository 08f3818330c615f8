"""Explain a quantized file, layer by layer."""

from __future__ import annotations

from pathlib import Path

from calibration.dataset import Dataset
from calibration.sample import unseen
from toolchain.core.progress import Progress, silent
from toolchain.evaluation.untracked import open_artifact
from toolchain.explain.explanation import Explanation, explain


def explain_files(
    base: Path,
    candidate: Path,
    train: Dataset,
    test: Dataset,
    *,
    images: int = 256,
    seed: int = 0,
    progress: Progress = silent,
) -> Explanation:
    """Explain a quantized file by the float file that it was made from, on a sample of the train split (`unseen`).

    Raises as `explain` does.
    """
    files = open_artifact(base, lambda: train), open_artifact(candidate, lambda: train)
    return explain(*files, unseen(train, test, images, seed, files[1].calibration), progress=progress)

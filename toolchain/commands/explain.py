"""Explain a quantized file, layer by layer."""

from __future__ import annotations

from pathlib import Path

from calibration.load import load, train_split
from calibration.sample import unseen
from toolchain.core.context import RunContext
from toolchain.evaluation.untracked import open_artifact
from toolchain.explain.explanation import Explanation, explain

_WHY = "explain reads training images; `glyphpress compare` shows what changed on the test split"


def explain_files(
    base: Path, candidate: Path, data: str, context: RunContext | None = None, *, images: int = 256
) -> Explanation:
    """Explain a quantized file by the float file that it was made from, on a sample of the train split (`unseen`).

    data: as `calibration.load.load` takes it. Raises DataNotFound without a train split, and as `explain` does.
    """
    context = context or RunContext()
    train, test = train_split(data, context.data_root, _WHY), load(data, "test", context.data_root)
    files = open_artifact(base, lambda: train), open_artifact(candidate, lambda: train)
    sample = unseen(train, test, images, context.seed, files[1].calibration)
    return explain(*files, sample, progress=context.progress)

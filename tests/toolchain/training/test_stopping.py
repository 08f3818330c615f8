"""Early stopping: a training ends when it gets no better, and its best epoch is the result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibration.dataset import Dataset
from calibration.load import load
from targets.preprocess import Preprocess
from tests.fixtures.lazy import blocks, torch
from toolchain.core.context import RunContext
from toolchain.core.errors import UsageProblem
from toolchain.training.fit import accuracy, hold_out
from toolchain.training.settings import TrainSettings
from toolchain.training.stopping import best_epoch
from toolchain.training.train import train

# A rate this high makes the accuracy jump from epoch to epoch.
JUMPY = TrainSettings(epochs=40, batch=32, lr=0.5, schedule="constant", ema=0.0, held_out=0.3, patience=3)


@pytest.fixture(scope="module")
def few() -> Dataset:
    digits = load("builtin:digits", "train")
    return digits.take(np.arange(200), "few")


def test_training_ends_without_a_better_epoch_and_keeps_the_best(few: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "m.pt"
    # Other first weights may end with the best epoch, or never.
    torch.manual_seed(0)
    result = train(few, model=blocks.Linear(), settings=JUMPY, out=out, context=RunContext(threads=1))
    accuracies = [epoch.held_out_accuracy or 0 for epoch in result.epochs]
    best = best_epoch(accuracies)
    assert len(accuracies) == best + 3 < 40
    assert accuracies[best - 1] == max(accuracies) > accuracies[-1]
    held_out = few.take(hold_out(few, 0.3, 0)[1], "held out")
    assert accuracy(result.module, held_out, Preprocess()) == pytest.approx(max(accuracies))
    saved = torch.load(out, weights_only=True)
    assert saved["epoch"] == result.facts["epoch"] == best
    assert all(torch.equal(saved["state_dict"][name], value) for name, value in result.module.state_dict().items())


def test_patience_needs_a_class_with_two_images(few: Dataset) -> None:
    single = few.take(np.sort(np.unique(few.labels, return_index=True)[1]), "single")
    with pytest.raises(UsageProblem, match="has two different images"):
        train(single, model=blocks.Linear(), settings=JUMPY.changed(batch=2), context=RunContext())

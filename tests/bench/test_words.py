"""Words composed of real glyphs are what they say they are, and are cut and read as the bench reports."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bench.words import accuracy, composed, cut_or_none, cutting
from calibration.dataset import Dataset, Images
from calibration.load import load
from tests.fixtures.lazy import torch
from toolchain.checkpoint import CheckpointRequest, settle

COUNT = 80


@pytest.fixture(scope="module")
def balanced(emnist_root: Path) -> Dataset:
    return load(f"{emnist_root}/resplit:balanced", "test").in_memory()


class Reader:
    """cnn-small as torch runs it, which takes seconds less than a conversion."""

    def __init__(self) -> None:
        self.model = settle("cnn-small", CheckpointRequest(), None).model.torch_module("a test")
        self.artifact = SimpleNamespace(path=Path("cnn-small"))

    def run(self, images: Images) -> np.ndarray:
        with torch.no_grad():
            logits: np.ndarray = self.model(torch.from_numpy(images[:, None] / np.float32(255))).numpy()
        return logits


def test_composed_words_are_cut_and_read_as_their_glyphs_are(balanced: Dataset) -> None:
    """The bounds leave room for chance: 300 other words gave 98.7 %, and 0.9 points between glyphs and cut words."""
    words = composed(balanced, seed=11, count=COUNT)
    assert words[0].picture.tobytes() == composed(balanced, seed=11, count=1)[0].picture.tobytes()
    for word in words:
        assert len(word.indices) == len(word.text)
    writings = [cut_or_none(word) for word in words]
    cuts = cutting(words, writings)
    assert cuts.close_joints > 0.03
    assert cuts.count_right >= 0.95 * COUNT
    assert cuts.right >= 0.93 * COUNT
    read = accuracy(Reader(), balanced, words, writings)  # type: ignore[arg-type]
    assert read.characters > 250
    assert read.own_in_words > 0.88
    assert abs(read.own_in_words - read.cut_in_words) < 0.03
    assert abs(read.own_alike - read.cut_alike) < 0.03

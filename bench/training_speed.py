"""How fast the training loop is beside a bare loop: `python -m bench.training_speed DIR:balanced`.

The bare loop fits cnn-small to tensors that lie in memory ready to use: shuffled indices, forward, cross-entropy,
backward, AdamW; no augmentation, no averaged weights. Both fit the same number of images on all cores, in turns.
Exit 1 if the loop without augmentation reaches less than 0.85 of the bare loop's images per second.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from calibration.dataset import Dataset
from calibration.load import load
from targets.preprocess import Preprocess
from toolchain import models
from toolchain.core.context import RunContext
from toolchain.training.device import as_tensor, memory_format, torch_threads
from toolchain.training.fit import fit
from toolchain.training.settings import TrainSettings

MODEL = "cnn-small"
LEAST = 0.85
SETTINGS = TrainSettings(epochs=1, held_out=0.0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--images", type=int, default=256 * 60)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    data = load(options.data, "train").take(np.arange(options.images), "sample").in_memory()
    loops: dict[str, Callable[[], None]] = {
        "bare loop": partial(bare, data),
        "fit, no augmentation": partial(whole, data, SETTINGS.changed(augment=0.0)),
        "fit, augmentation": partial(whole, data, SETTINGS),
    }
    speeds: dict[str, list[float]] = {name: [] for name in loops}
    # The first round warms up.
    for number in range(options.rounds + 1):
        for name, loop in loops.items():
            start = time.perf_counter()
            loop()
            if number:
                speeds[name].append(options.images / (time.perf_counter() - start))
    first, *others = speeds
    ratios = {
        name: statistics.median(ours / floor for ours, floor in zip(speeds[name], speeds[first], strict=True))
        for name in others
    }
    for name, measured in speeds.items():
        ratio = f"{ratios[name]:.2f} of it" if name in ratios else ""
        print(f"{name:<22}{statistics.median(measured):8,.0f} images per second  {ratio}")
    return int(ratios[others[0]] < LEAST)


def whole(data: Dataset, settings: TrainSettings) -> None:
    fit(models.build(MODEL, len(data.classes)), data, Preprocess(), settings, context=RunContext())


def bare(data: Dataset) -> None:
    with torch_threads(0):
        module = models.build(MODEL, len(data.classes))
        module = module.to(memory_format=memory_format(module)).train()
        pixels, labels = as_tensor(module, Preprocess().apply(data.images)), torch.from_numpy(data.labels)
        optimizer = torch.optim.AdamW(module.parameters(), lr=SETTINGS.lr, weight_decay=SETTINGS.weight_decay)
        for indices in torch.randperm(len(labels)).split(SETTINGS.batch):
            loss = torch.nn.functional.cross_entropy(module(pixels[indices]), labels[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


if __name__ == "__main__":
    sys.exit(main())

"""The images that a file is explained or tried on: of the train split, but none that it was calibrated on."""

from __future__ import annotations

from typing import Any

import numpy as np

from calibration.dataset import Dataset
from calibration.sample import draw, image_hashes


def unseen(
    train: Dataset,
    test: Dataset,
    size: int,
    seed: int,
    calibration: dict[str, Any] | None,
    *,
    at_most: bool = False,
) -> Dataset:
    """Return `size` images of the train split, stratified and seeded, none of the calibration set or the test split.

    calibration: what the file's sidecar records of it (`CalibrationSet.facts`), None where it has none; a set that was
    not drawn from `train` leaves nothing out. at_most: take fewer where there are not so many.
    Raises EmptyData when too few images are left.
    """
    hashes = image_hashes(train.images)
    used = np.isin(hashes, image_hashes(test.images))
    if calibration is not None and calibration["images"] <= len(train):
        drawn = draw(train, calibration["images"], calibration["seed"], exclude=test)
        if drawn.sha256 == calibration["sha256"]:
            used |= np.isin(hashes, hashes[drawn.indices])
    left = train.take(np.flatnonzero(~used), "not calibrated on")
    chosen = draw(left, size, seed, at_most=at_most)
    return train.take(np.flatnonzero(~used)[chosen.indices], f"{len(chosen.images):,} not calibrated on, seed {seed}")

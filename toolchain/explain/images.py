"""The images that a file is explained or tried on: of the train split, but none that it was calibrated on."""

from __future__ import annotations

from typing import Any

from calibration.dataset import Dataset
from calibration.errors import EmptyData
from calibration.sample import draw


def unseen(train: Dataset, test: Dataset, size: int, seed: int, calibration: dict[str, Any] | None) -> Dataset:
    """Return `size` images of the train split, stratified and seeded, of which none is in the calibration set.

    calibration: what the file's sidecar records of it (`CalibrationSet.facts`), None where it has none; a set that was
    not drawn from `train` leaves nothing out. Raises EmptyData when too few images are left, saying how many.
    """
    used = test
    if calibration is not None and calibration["images"] <= len(train):
        drawn = draw(train, calibration["images"], calibration["seed"], exclude=test)
        if drawn.sha256 == calibration["sha256"]:
            used = train.take(drawn.indices, "calibration")
    try:
        chosen = draw(train, size, seed, exclude=used)
    except EmptyData as error:
        raise EmptyData(f"{error} (those that calibrated the file are left out)") from error
    return train.take(chosen.indices, f"{size:,} images, seed {seed}, none of the calibration set")

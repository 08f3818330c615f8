"""TrainSettings: the hyperparameters of a training, and the named presets."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from targets.errors import nearest
from toolchain.core.errors import UsageProblem

FEW_IMAGES = 10_000
"""Below this number of training images the default preset is `digits`, otherwise `emnist`."""
PRECISIONS = ("float32", "bfloat16")
MOST_LR = 1.0
"""AdamW moves each weight by about the learning rate per step, so a larger one only diverges."""


@dataclass(frozen=True)
class TrainSettings:
    """How a model is fitted: AdamW under a one-cycle learning rate (Smith, arXiv:1708.07120).

    epochs: passes over the training images. batch: images per step, at most all of them.
    lr: peak of the learning rate. weight_decay: AdamW's, decoupled from the rate.
    label_smoothing: share of the target spread over all classes (Szegedy, arXiv:1512.00567).
    ema: decay per step of the averaged weights, which are the result; 0 returns the last step's weights.
    balance: 1 fits for classes that are equally likely in use, however many images each has in training; 0 for classes
    as frequent as in training (logit adjustment, Menon, arXiv:2007.07314). No effect where all are equally frequent.
    augment: strength of the random affine maps; 1 is what the reference model was trained with, 0 none.
    held_out: share of each class that is not fitted and gives the accuracy shown after each epoch; 0 for none.
    precision: of the layers' arithmetic, one of PRECISIONS; weights, averages and the loss stay float32. bfloat16 takes
    half the time on a CPU that computes with it (AVX512-BF16, AMX), and longer on others.
    """

    epochs: int = 24
    batch: int = 256
    lr: float = 4e-3
    weight_decay: float = 0.02
    label_smoothing: float = 0.1
    ema: float = 0.998
    balance: float = 1.0
    augment: float = 1.0
    held_out: float = 0.02
    precision: str = "float32"

    def __post_init__(self) -> None:
        """Raise UsageProblem for an impossible value."""
        limits = {
            "epochs": (self.epochs >= 1, "1 or more"),
            "batch": (self.batch >= 2, "2 images or more"),
            "lr": (0 < self.lr <= MOST_LR, f"above 0, and at most {MOST_LR:g}"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "0 or more"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "from 0 to below 1"),
            "ema": (0 <= self.ema < 1, "from 0 to below 1"),
            "balance": (0 <= self.balance <= 1, "from 0 to 1"),
            "augment": (0 <= self.augment <= 3, "from 0 to 3"),
            "held_out": (0 <= self.held_out <= 0.5, "from 0 to 0.5"),
            "precision": (self.precision in PRECISIONS, " or ".join(PRECISIONS)),
        }
        for name, (is_possible, allowed) in limits.items():
            if not is_possible:
                raise UsageProblem(f"training with {name} {getattr(self, name)} is not possible; give {allowed}")

    def changed(self, **values: float | str | None) -> TrainSettings:
        """Return the settings with every value replaced that is not None."""
        return replace(self, **{name: value for name, value in values.items() if value is not None})  # type: ignore[arg-type] # names are checked by replace


PRESETS = {
    "emnist": TrainSettings(),
    "digits": TrainSettings(epochs=10, batch=64, lr=3e-3, ema=0.98, held_out=0.1),
    "fine-tune": TrainSettings(epochs=3, lr=1e-3, ema=0.99),
}


def preset(name: str) -> TrainSettings:
    """Return a named preset; raises UsageProblem with the nearest names on an unknown one."""
    if name not in PRESETS:
        raise UsageProblem(f"no training preset '{name}'; {nearest(name, PRESETS, 'see `glyphpress train --help`')}")
    return PRESETS[name]


def preset_for(images: int) -> TrainSettings:
    """Return the preset for that many training images: fewer images need smaller batches."""
    return PRESETS["digits" if images < FEW_IMAGES else "emnist"]

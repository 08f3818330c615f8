"""A converted file must answer like the model it was made from; that is checked on the file itself, when it is made."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calibration.dataset import Images, load
from targets import catalog
from targets.artifact import Artifact
from toolchain.checkpoint.forward import forward
from toolchain.errors import ParityError
from toolchain.model import FloatModel

TOLERANCE = 1e-4
"""Largest difference allowed between a converted float file and its model, in logits."""


def reference_images(count: int = 256) -> Images:
    """Return uint8 [count, 28, 28] real handwriting that is always there (the built-in digits)."""
    return load("builtin:digits", "train").images[:count]


def reference_logits(model: FloatModel, images: Images) -> NDArray[np.float32]:
    """Return float32 [N, classes], what the model itself answers to uint8 [N, 28, 28]."""
    first = model.preprocess.label_offset
    return forward(model)(model.preprocess.apply(images))[:, first : first + len(model.classes)]


def check_parity(artifact: Artifact, expected: NDArray[np.float32], images: Images) -> None:
    """Raise ParityError when the file's logits on `images` differ by TOLERANCE or more."""
    with catalog.default_for(artifact.format).open(artifact) as session:
        worst = float(np.abs(session.run(images) - expected).max())
    if not worst < TOLERANCE:
        raise ParityError(
            f"{artifact.path.name}: differs from the model by {worst:.2g} in logits on {len(images)} images "
            f"(allowed {TOLERANCE:g}); the converter changed it, export another way"
        )

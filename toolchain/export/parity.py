"""Check on the file itself, when it is made, that a converted file gives the same answers as its model."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from calibration.dataset import Images
from calibration.load import load
from targets import catalog
from targets.artifact import Artifact
from toolchain.checkpoint.float_model import FloatModel, forward
from toolchain.core.errors import ParityError

TOLERANCE = 1e-4
"""Allowed difference between the logits of a float file and its model, as a share of the largest logit (at least 1)."""
ROUNDINGS = 4
"""A difference of this many times the model's own float32 error is allowed too: a converter adds in another order."""


def reference_images(count: int = 256) -> Images:
    """Return uint8 [count, 28, 28], the first of the built-in digits."""
    return load("builtin:digits", "train").images[:count]


def reference_logits(model: FloatModel, images: Images) -> NDArray[np.float32]:
    """Return the model's own logits, float32 [N, classes], for uint8 [N, 28, 28]."""
    first = model.preprocess.label_offset
    return forward(model)(model.preprocess.apply(images))[:, first : first + len(model.classes)]


def rounding_error(model: FloatModel, images: Images, logits: NDArray[np.float32]) -> float:
    """Return the largest difference of `logits` from those in float64; 0 where the model cannot run in float64.

    logits: the model's own, from `reference_logits`.
    """
    import torch

    if model.module is None:
        return 0.0
    first, pixels = model.preprocess.label_offset, model.preprocess.apply(images).astype(np.float64)
    try:
        with torch.no_grad():
            exact = copy.deepcopy(model.module).double()(torch.from_numpy(pixels)).numpy()
    except Exception:  # noqa: BLE001 (a stranger's forward may insist on float32 in any way)
        return 0.0
    error = float(np.abs(exact[:, first : first + len(model.classes)] - logits).max())
    return error if np.isfinite(error) else 0.0


def allowed_difference(expected: NDArray[np.float32]) -> float:
    """Return how far logits may lie from the expected ones; float32 rounds large ones more than small ones."""
    return TOLERANCE * max(1.0, float(np.abs(expected).max()))


def check_parity(
    artifact: Artifact, expected: NDArray[np.float32], images: Images, rounding: Callable[[], float] = lambda: 0.0
) -> None:
    """Raise ParityError when the file's logits on `images` differ by more than TOLERANCE and the rounding error allow.

    rounding: returns `rounding_error`; called only where the logits differ by more than TOLERANCE.
    """
    with catalog.default_for(artifact.format).open(artifact) as session:
        worst = float(np.abs(session.run(images) - expected).max())
    if not worst < (allowed := allowed_difference(expected)):
        allowed = max(allowed, ROUNDINGS * rounding())
    if not worst < allowed:
        largest = float(np.abs(expected).max())
        raise ParityError(
            f"{artifact.path.name}: its logits differ from the model's by {worst:.2g} on {len(images)} images, where "
            f"{allowed:.2g} is allowed (the largest logit is {largest:.3g}), so the file computes something "
            "else; export the other format, or change the layer that the converter gets wrong"
        )

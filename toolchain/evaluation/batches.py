"""Whether a file answers an image alike each time, and alike alone and among others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calibration.dataset import Images, StreamedImages
from targets.session import Session
from toolchain.core.errors import EvidenceError

PROBED = 32
"""Images, the first of the data set, that are read again."""
STEADY = 1e-4
"""Largest difference between two readings of a steady file, as a share of its largest answer."""
ALIKE = 1e-3
"""The same between images that are read alone and in a batch, where runtimes add up in another order."""


def reads_alike_in_batches(session: Session, images: Images | StreamedImages) -> bool:
    """Return whether images get the same answers in a batch as alone, which is how programs on devices read.

    A BatchNorm that was exported while it trained, for one, takes off the mean of the batch. Raises EvidenceError where
    the same images are answered differently each time.
    """
    if session.facts.cost == "scripted":  # a script answers in an order of its own
        return True
    probed = images[:PROBED]
    together, again = session.run(probed), session.run(probed)
    if not _alike(together, again, STEADY):
        raise EvidenceError(
            f"{session.artifact.path.name} answers the same images differently each time; export it with dropout and "
            "other random layers switched off (model.eval())"
        )
    return _alike(together, np.concatenate([session.run(image[None]) for image in probed]), ALIKE)


def _alike(answers: NDArray[np.float32], others: NDArray[np.float32], share: float) -> bool:
    return bool(np.abs(answers - others).max(initial=0) <= share * np.abs(answers).max(initial=0))

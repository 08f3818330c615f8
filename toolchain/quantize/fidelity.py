"""Compare a quantized file with its float file on a few images, so that no conversion fails unnoticed."""

from __future__ import annotations

from math import log10

import numpy as np
from numpy.typing import NDArray

from calibration.dataset import Dataset, Images
from targets import catalog
from targets.artifact import Artifact, Fidelity
from targets.errors import TargetError
from toolchain.core.errors import GlyphpressError

COMPARED = 256
"""Images on which both files run: the share of equal answers is known to about 2 pp, in a few seconds at most."""
EXPLAINED = 32
"""Number of those images on which the worst layers of a collapsed file are found."""
WORST = 3
"""Number of worst layers that are named."""

SOUND_DB = {4: 10.0, 8: 20.0, 16: 20.0}
"""Bits of a weight -> least SQNR of the logits of a sound file, in dB.

Of 13 small readers in both formats, sound files of 8 bits kept 30 dB or more and sound ones of 4 bits 14 or more; 8-bit
files that lost 8 to 80 points of accuracy kept 12.3 dB or less.
"""
SOUND_AGREEMENT = {4: 0.96, 8: 0.95, 16: 0.95}
"""Bits of a weight -> least share of equal answers of a sound file.

Of eight readers of EMNIST, files that kept less than 95 % lost 0.4 to 81 points of accuracy (two of 23 gained half a
point), and those of 4 bits with 95 to 96 % lost 1.0 to 1.3. Sound 8-bit files kept 97.7 % of the answers or more.
Between 96 and 98 %, neither measure tells files of 4 bits that lost a point from those that lost nothing.
"""


def fidelity(base: Artifact, made: Artifact, images: Images, bits: int) -> Fidelity:
    """Compare a file with weights of `bits` bits with `base`; where it collapsed, name the layers that add most error.

    Raises RunFailed where either file cannot run, or gives NaN or infinity.
    """
    exact, rounded = _logits(base, images), _logits(made, images)
    signal, noise = (float(np.square(values).sum()) for values in (exact, rounded - exact))
    sqnr_db = 10 * log10(signal / noise) if signal and noise else None
    agreement = float((exact.argmax(1) == rounded.argmax(1)).mean())
    collapsed = agreement < SOUND_AGREEMENT[bits] or (sqnr_db is not None and sqnr_db < SOUND_DB[bits])
    worst = _worst(base, made, images[:EXPLAINED]) if collapsed else {}
    return Fidelity(base.path.name, len(images), sqnr_db, agreement, collapsed, worst)


def sample(train: Dataset, seed: int) -> Images:
    """Return uint8 images to compare on where no calibration set is drawn."""
    return train.images[np.random.default_rng(seed).permutation(len(train))[:COMPARED]]


def _logits(artifact: Artifact, images: Images) -> NDArray[np.float64]:
    with catalog.default_for(artifact.format).open(artifact) as session:
        return session.run(images).astype(np.float64)


def _worst(base: Artifact, made: Artifact, images: Images) -> dict[str, float | None]:
    """Return the SQNR of the worst layers by `toolchain.explain`; empty where it cannot open the files."""
    from toolchain.explain.explanation import explain

    dataset = Dataset(images, np.zeros(len(images), np.int64), base.classes, "compared", "train", "")
    try:
        blamed = explain(base, made, dataset).blame()
    except (GlyphpressError, TargetError):
        return {}
    return {layer.layer: layer.alone.sqnr_db for layer in blamed[:WORST]}

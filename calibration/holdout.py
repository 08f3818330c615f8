"""A seeded, stratified test split in which no image stands on both sides, even when it occurs twice."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from calibration.dataset import Dataset, Images, Labels
from calibration.errors import EmptyData
from calibration.sample import image_hashes

TEST_SHARE = 0.2
"""A fifth of each class judges what the rest has trained, where the data does not part itself."""


def parted_off(data: Dataset) -> tuple[Dataset, Dataset]:
    """Return a train split without a fifth of each class, and that fifth, which no copy of an image crosses.

    Raises EmptyData as `held_out` does.
    """
    chosen = held_out(data.images[:], data.labels, data.classes, TEST_SHARE)
    rest, held = (np.flatnonzero(part) for part in (~chosen, chosen))
    return data.take(rest, "without a held-out fifth"), data.take(held, "held-out fifth")


def held_out(
    images: Images, labels: Labels, classes: tuple[str, ...], share: float, seed: int = 0
) -> NDArray[np.bool_]:
    """Return bool [N]: which images are the test split, about `share` of each class and at least one of each.

    The choice hangs on an image's pixels and the seed only, so adding pictures to a folder moves few others and
    reordering moves none. Copies of an image follow the first one, whatever their label.
    Raises EmptyData when a class has fewer than two different images.
    """
    hashes, first, group = np.unique(image_hashes(images), return_index=True, return_inverse=True)
    ranks = np.array([hashlib.blake2b(b"%d:%s" % (seed, digest), digest_size=8).digest().hex() for digest in hashes])
    chosen = np.zeros(len(hashes), bool)
    for label, name in enumerate(classes):
        members = np.flatnonzero(labels[first] == label)
        if len(members) < 2:
            raise EmptyData(
                f"class '{name}' has {len(members)} different images and cannot be split into train and test; "
                "add some, or make train/ and test/ folders"
            )
        order = members[np.argsort(ranks[members])]
        chosen[order[: min(max(1, round(share * len(order))), len(order) - 1)]] = True
    return chosen[group]

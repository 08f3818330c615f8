"""Samples of a data set: calibration sets, unseen images, and test splits that share no image with training."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.dataset import Dataset, Images, ImageSource, Labels, chunks
from calibration.errors import EmptyData, TestLeak, UnknownData


@dataclass(frozen=True)
class CalibrationSet:
    """Images from which static quantization takes its ranges, never from a test split.

    images: uint8 [N, 28, 28]. indices: int64 [N], their positions in `origin`. sha256: digest of the images. note: for
    the artifact that is calibrated on it; empty where there is nothing to note.
    """

    images: Images
    indices: NDArray[np.int64]
    seed: int
    origin: str
    sha256: str
    note: str = ""

    def facts(self) -> dict[str, Any]:
        """Return the entry in an artifact's sidecar."""
        return {"origin": self.origin, "images": len(self.images), "seed": self.seed, "sha256": self.sha256}


def facts_problem(facts: object) -> str:
    """Return what keeps a stored entry from being `CalibrationSet.facts`, or an empty string."""
    if not isinstance(facts, dict):
        return "they are no table"
    required = {"origin": str, "images": int, "seed": int, "sha256": str}
    if wrong := [key for key, kind in required.items() if type(facts.get(key)) is not kind]:
        return f"they do not hold {', '.join(wrong)}"
    if facts["images"] < 1 or not 0 <= facts["seed"] < 2**32:
        return f"they name {facts['images']} images and the seed {facts['seed']}"
    if not facts["origin"] or not re.fullmatch("[0-9a-f]{64}", facts["sha256"]):
        return "they name no data set, or no SHA-256 of its images"
    return ""


def draw(
    train: Dataset, size: int, seed: int = 0, exclude: Dataset | None = None, *, at_most: bool = False
) -> CalibrationSet:
    """Draw `size` images in random order, equally many of each class as long as a class has more.

    exclude: the test split; images that are in it too are left out, as are further copies of an image. at_most: take
    fewer, with a note, where there are not enough, but at least as many as classes.
    Raises TestLeak when `train` is itself a test split, UnknownData when fewer images than classes are asked for,
    EmptyData when too few images are left.
    """
    if train.split == "test":
        raise TestLeak(f"{train.origin} is a test split; draw calibration images from the train split")
    if size < len(train.classes):
        raise UnknownData(
            f"{size} images leave out some of the {len(train.classes)} classes of {train.origin}; a calibration set "
            f"needs {len(train.classes)} or more"
        )
    hashes = image_hashes(train.images)
    fresh = np.zeros(len(train), bool)
    fresh[np.unique(hashes, return_index=True)[1]] = True
    if exclude is not None:
        fresh &= ~np.isin(hashes, image_hashes(exclude.images))
    candidates = np.flatnonzero(fresh)
    note = ""
    if at_most and len(train.classes) <= len(candidates) < size:
        note = (
            f"calibrated on {len(candidates):,} images, not {size:,}: {train.origin} has no more different ones "
            "outside the test split"
        )
        size = len(candidates)
    if len(candidates) < size:
        raise EmptyData(
            f"{train.origin} has {len(candidates):,} different images outside the test split, fewer than the {size:,} "
            "asked for; ask for fewer"
        )
    indices = _stratified(candidates, train.labels, size, np.random.default_rng(seed))
    images = train.images[indices]
    return CalibrationSet(images, indices, seed, train.origin, hashlib.sha256(images.tobytes()).hexdigest(), note)


def image_hashes(images: ImageSource) -> NDArray[np.bytes_]:
    """Return the 16-byte BLAKE2b digest of each image [N], in hexadecimal, which finds equal images."""
    hashes = np.empty(len(images), "S32")
    for part in chunks(len(images)):
        block = np.ascontiguousarray(images[part])
        hashes[part] = [hashlib.blake2b(image.data, digest_size=16).hexdigest() for image in block]
    return hashes


def _stratified(
    candidates: NDArray[np.int64], labels: Labels, size: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return `size` candidates in rounds: each takes one of each class that has more, the last one of some classes."""
    shuffled = rng.permutation(candidates)
    order = np.argsort(labels[shuffled], kind="stable")
    by_class = labels[shuffled][order]
    round_of = np.empty(len(shuffled), np.int64)
    round_of[order] = np.arange(len(shuffled)) - np.searchsorted(by_class, by_class)
    # The sort is stable, so within a round the shuffled order decides.
    return rng.permutation(shuffled[np.argsort(round_of, kind="stable")[:size]])


def unseen(
    train: Dataset,
    test: Dataset,
    size: int,
    seed: int,
    calibration: dict[str, Any] | None,
    *,
    at_most: bool = False,
) -> Dataset:
    """Return `size` images of the train split, stratified and seeded, none from the calibration set or the test split.

    calibration: the entry in the file's sidecar (`CalibrationSet.facts`), None where it has none; a set that was not
    drawn from `train` excludes nothing. at_most: take fewer where there are not enough.
    Raises EmptyData when too few images are left.
    """
    hashes = image_hashes(train.images)
    used = np.isin(hashes, image_hashes(test.images))
    if calibration is not None and calibration["images"] <= len(train):
        drawn = draw(train, calibration["images"], calibration["seed"], exclude=test)
        if drawn.sha256 == calibration["sha256"]:
            used |= np.isin(hashes, hashes[drawn.indices])
    remaining = train.take(np.flatnonzero(~used), "not calibrated on")
    chosen = draw(remaining, size, seed, at_most=at_most)
    return train.take(np.flatnonzero(~used)[chosen.indices], f"{len(chosen.images):,} not calibrated on, seed {seed}")


TEST_SHARE = 0.2
"""Share of each class in the test split, where the data has no splits of its own."""


def split_off_test(data: Dataset) -> tuple[Dataset, Dataset]:
    """Return the data without a fifth of each class, and that fifth; no image is in both, even as a copy.

    Raises EmptyData as `held_out` does.
    """
    chosen = held_out(data.images, data.labels, data.classes, TEST_SHARE)
    train, test = (np.flatnonzero(mask) for mask in (~chosen, chosen))
    return data.take(train, "without a held-out fifth"), data.take(test, "held-out fifth")


def held_out(images: ImageSource, labels: Labels, classes: tuple[str, ...], share: float) -> NDArray[np.bool_]:
    """Return bool [N]: which images form the test split, about `share` of each class and at least one.

    The choice depends on an image's pixels only, so adding pictures to a folder moves few others, and
    reordering moves none. Copies of an image go where the first one goes, whatever their label.
    Raises EmptyData when a class has fewer than two different images.
    """
    hashes, first, group = np.unique(image_hashes(images), return_index=True, return_inverse=True)
    ranks = np.array([hashlib.blake2b(b"0:" + digest, digest_size=8).digest().hex() for digest in hashes])
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

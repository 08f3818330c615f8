"""Leaks: test images that were also trained or calibrated on, by hash; and calibration images in a wrong orientation.

An artifact's sidecar says how many images calibrated it, by which seed they were drawn, and their digest, but holds
no images. So the draw is made again from the train split: where the digest is the same, so are the images. A file that
was calibrated on turned images may be as accurate as before, since the ranges hardly differ, but it is still a mistake.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from calibration.dataset import Dataset, Images
from calibration.errors import DataError
from calibration.sample import draw, image_hashes
from targets.artifact import Artifact
from targets.errors import plain_reason
from targets.preprocess import ORIENTATIONS, TURNS, Orientation
from toolchain.core.errors import EvidenceError
from toolchain.core.json_codec import Count
from toolchain.evaluation.evaluate import Evaluation
from toolchain.gate.candidate import Sources
from toolchain.gate.limit import MOST, Limit, LimitDefinition, Measure, Verdict, side, within
from toolchain.stats.decision import Outcome


class LeaksLimit(Limit):
    """How many test images may also be training or calibration images."""

    measure: ClassVar[Measure] = "count"
    max: int = Field(default=0, ge=0, le=MOST, strict=True)


LISTED = 20
"""At most so many of the images are listed, the first ones; their number is always given."""
Hashes = NDArray[np.bytes_]


@dataclass(frozen=True)
class Leaks:
    """How many test images are also training or calibration images, and the first LISTED of them by index.

    test, train: names of the data sets. training, calibration: how many are in the train split, and how many in
    the set that calibrated the file; seen: how many are in either. turned: the orientation of the calibration images.
    """

    test: str
    train: str
    images: Count
    training: Count
    calibration: Count
    seen: Count
    first: tuple[Count, ...] = ()
    turned: Orientation = "upright"

    def __post_init__(self) -> None:
        """Reject counts that cannot be, so that nothing passes by them."""
        either = max(self.training, self.calibration), min(self.training + self.calibration, self.images)
        fits = min(self.training, self.calibration) >= 0 and either[0] <= self.seen <= either[1]
        fits = fits and self.turned in ORIENTATIONS
        if not (self.images > 0 and fits and len(self.first) == min(self.seen, LISTED)):
            raise EvidenceError(f"{self.test}: the counts of leaks do not fit together; gather the evidence again")


def find_leaks(evaluation: Evaluation, train: Dataset, artifact: Artifact) -> Leaks:
    """Look for the test images, by hash, among the train split and the candidate's calibration set.

    train: the split that the file was trained and calibrated on. Raises EvidenceError when nothing tells which images
    calibrated the file, or when `evaluation` is another file's evaluation.
    """
    if evaluation.artifact_sha256 != artifact.sha256:
        raise EvidenceError(f"{artifact.path.name} is not the file that was evaluated; evaluate it again")
    trained_on = image_hashes(train.images)
    in_training = np.isin(evaluation.sample_ids, trained_on)
    calibrated_on, turned = _calibrated_on(artifact, train, np.isin(trained_on, evaluation.sample_ids))
    in_calibration = np.isin(evaluation.sample_ids, calibrated_on)
    seen = np.flatnonzero(in_training | in_calibration)
    return Leaks(
        test=evaluation.origin,
        train=train.origin,
        images=len(evaluation),
        training=int(np.count_nonzero(in_training)),
        calibration=int(np.count_nonzero(in_calibration)),
        seen=len(seen),
        first=tuple(seen[:LISTED].tolist()),
        turned=turned,
    )


def judge_leaks(limit: LeaksLimit, leaks: Leaks) -> Verdict:
    """Judge how many test images were seen before; calibration images in the wrong orientation fail at any limit."""
    if leaks.turned != "upright":
        reason = (
            f"its calibration images are in the wrong orientation ({leaks.turned}); calibrate it again on upright ones"
        )
        return Verdict("leaks", Outcome.FAIL, limit.action, limit.max, leaks.seen, None, reason)
    outcome = within("leaks", leaks.seen, limit.max)
    reason = (
        f"{leaks.seen:,} of {leaks.images:,} test images were seen before, {leaks.training:,} in {leaks.train} and "
        f"{leaks.calibration:,} in the calibration set, {side(outcome)} {limit.max:,}"
    )
    if outcome is Outcome.FAIL:
        more = f" and {leaks.seen - LISTED:,} more" if leaks.seen > LISTED else ""
        reason += f": images {', '.join(map(str, leaks.first))}{more} of {leaks.test}"
    return Verdict("leaks", outcome, limit.action, limit.max, leaks.seen, None, reason)


def _calibrated_on(artifact: Artifact, train: Dataset, in_test: NDArray[np.bool_]) -> tuple[Hashes, Orientation]:
    """Return the hashes of the calibration images, turned upright (none without calibration), and their orientation.

    in_test: bool [len(train)], which training images are test images too.
    """
    name, recorded = artifact.path.name, artifact.calibration
    if recorded is None:
        if artifact.recipe == "foreign":
            raise EvidenceError(f"nothing says which images calibrated {name}, which came from elsewhere; drop [leaks]")
        return image_hashes(train.images[:0]), "upright"
    try:
        size, seed, digest = int(recorded["images"]), int(recorded["seed"]), recorded["sha256"]
    except (KeyError, TypeError, ValueError) as error:
        raise EvidenceError(
            f"{name}: its sidecar's calibration cannot be read ({plain_reason(error)}); press it again"
        ) from error
    for images in _draws(train, size, seed, in_test):
        for turned, turn in TURNS.items():
            if sha256(np.ascontiguousarray(turn(images)).data).hexdigest() == digest:
                return image_hashes(images), turned
    raise EvidenceError(
        f"cannot tell which images calibrated {name}: {size:,} images of {recorded.get('origin')}, seed {seed}, are "
        f"others when drawn from {train.origin}; give --train-data of the set that they were drawn from"
    )


def _draws(train: Dataset, size: int, seed: int, in_test: NDArray[np.bool_]) -> Iterator[Images]:
    """Yield the images as `draw` takes them, first without test images, then with them.

    Leaving images out beforehand draws the same as `draw(..., exclude=test)`: only the remaining images are drawn from.
    """
    for without in (True, False) if in_test.any() else (False,):
        try:
            source = train.take(np.flatnonzero(~in_test), "without test images") if without else train
            yield draw(source, size, seed).images
        except DataError:  # too few images, or no train split: they were not drawn this way
            continue


def _collect(_: LeaksLimit, sources: Sources) -> Leaks:
    train, file = sources.training_images(LEAKS), sources.file(LEAKS)
    return find_leaks(sources.candidate.evaluation, train, file)


LEAKS = LimitDefinition(
    name="leaks",
    settings=LeaksLimit,
    about="Test images that are also training or calibration images.",
    example={"max": 0},
    evidence=("leaks",),
    judge=judge_leaks,
    collect=_collect,
    file_must="say what calibrated it",
    training_images=True,
)

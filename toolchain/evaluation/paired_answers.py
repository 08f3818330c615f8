"""Pairs: what two files answered on the same images, image by image; every accuracy question is asked of it."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.dataset import SIDE, Dataset, Images
from targets.preprocess import Preprocess
from targets.session import LARGEST, RuntimeFacts
from toolchain.core.errors import EvidenceError
from toolchain.core.json_codec import ArrayAsList, AsText, ByItself
from toolchain.evaluation.evaluate import Evaluation

Answers = Annotated[NDArray[np.int64], ArrayAsList("int64")]
Confidences = Annotated[NDArray[np.float32], ArrayAsList("float32")]


@dataclass(frozen=True)
class FileFacts:
    """A file that was evaluated, the runtime that answered, and how the file wants its images.

    preprocess_source: what said so (`targets.artifact.PreprocessSource`), empty where that was not recorded.
    """

    name: str
    sha256: str
    bytes: int
    runtime: Annotated[RuntimeFacts, ByItself()]
    preprocess: Annotated[Preprocess, ByItself()]
    preprocess_source: str = ""

    def __post_init__(self) -> None:
        """Reject what was stored by something else, or changed by hand."""
        kinds = [type(value) for value in vars(self).values()]
        if kinds != [str, str, int, RuntimeFacts, Preprocess, str] or not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise EvidenceError("the facts of a file have no name, digest, size or runtime; evaluate it again")
        if abs(self.bytes) > LARGEST:
            raise EvidenceError(f"{self.name}: no file has so many bytes; evaluate it again")

    @classmethod
    def of(cls, evaluation: Evaluation) -> FileFacts:
        """Return the facts of the file that an evaluation is of."""
        return cls(
            evaluation.artifact,
            evaluation.artifact_sha256,
            evaluation.artifact_bytes,
            evaluation.facts,
            evaluation.preprocess,
            evaluation.preprocess_source,
        )

    @property
    def input(self) -> str:
        """How the file wants its images, and what said so."""
        return f"{self.preprocess} ({self.preprocess_source or 'source not recorded'})"


class Files(NamedTuple):
    """The facts of both files."""

    baseline: FileFacts
    candidate: FileFacts


@dataclass(frozen=True, eq=False)
class Pairs:
    """The answers of a baseline and of a candidate on the same images, in the same order.

    labels, before, after: int64 [N], indices into `classes`: the truth, the baseline's answer, the candidate's.
    before_confidence, after_confidence: float32 [N], the probability that each gave its answer.
    """

    baseline: FileFacts
    candidate: FileFacts
    origin: str
    dataset_sha256: str
    classes: tuple[str, ...]
    labels: Answers = field(repr=False)
    before: Answers = field(repr=False)
    after: Answers = field(repr=False)
    before_confidence: Confidences = field(repr=False)
    after_confidence: Confidences = field(repr=False)

    def __post_init__(self) -> None:
        """Reject what cannot be judged."""
        count, columns = len(self.labels), len(self.classes)
        arrays = (self.labels, self.before, self.after)
        if not all(isinstance(word, str) for word in (self.origin, self.dataset_sha256, *self.classes)):
            raise EvidenceError("the data set or a class has no name; evaluate again")
        if len(set(self.classes)) < columns:
            raise EvidenceError(f"{self.origin}: two classes have the same name; give each its own")
        if not count:
            raise EvidenceError(f"{self.origin}: no images were read; evaluate some first")
        if any(a.shape != (count,) or a.min() < 0 or a.max() >= columns for a in arrays):
            raise EvidenceError(f"{self.origin}: labels and answers do not fit {columns} classes; evaluate again")
        for confidence in (self.before_confidence, self.after_confidence):
            # Written so that NaN is refused too.
            if confidence.shape != (count,) or not ((confidence >= 0) & (confidence <= 1)).all():
                raise EvidenceError(f"{self.origin}: a confidence is no probability; evaluate again")

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    @property
    def files(self) -> Files:
        """The facts of both files."""
        return Files(self.baseline, self.candidate)

    @cached_property
    def lost(self) -> NDArray[np.bool_]:
        """Which images only the baseline reads rightly, bool [N]."""
        return np.asarray(np.equal(self.before, self.labels) & np.not_equal(self.after, self.labels))

    @cached_property
    def gained(self) -> NDArray[np.bool_]:
        """Which images only the candidate reads rightly, bool [N]."""
        return np.asarray(np.not_equal(self.before, self.labels) & np.equal(self.after, self.labels))

    @cached_property
    def flipped(self) -> NDArray[np.bool_]:
        """Which images changed their answer, bool [N]."""
        return np.not_equal(self.before, self.after)

    @classmethod
    def of(cls, base: Evaluation, candidate: Evaluation) -> Pairs:
        """Pair two evaluations image by image.

        Raises EvidenceError, saying which, when they are of other classes, other images, another order or other
        labels.
        """
        _check_pairs(base, candidate)
        return cls(
            baseline=FileFacts.of(base),
            candidate=FileFacts.of(candidate),
            origin=candidate.origin,
            dataset_sha256=candidate.dataset_sha256,
            classes=base.classes,
            labels=base.labels,
            before=base.predictions,
            after=candidate.predictions,
            before_confidence=base.confidence,
            after_confidence=candidate.confidence,
        )


def _check_pairs(base: Evaluation, candidate: Evaluation) -> None:
    names = f"{base.artifact} and {candidate.artifact}"
    advice = "evaluate both on the same data"
    if base.classes != candidate.classes:
        raise EvidenceError(f"{names} were evaluated on other classes; {advice}")
    if len(base) != len(candidate):
        raise EvidenceError(f"{names} were evaluated on {len(base)} and {len(candidate)} images; {advice}")
    foreign = np.flatnonzero(base.sample_ids != candidate.sample_ids)
    if foreign.size and np.array_equal(np.sort(base.sample_ids), np.sort(candidate.sample_ids)):
        raise EvidenceError(
            f"{names} saw the same images in another order, first at image {foreign[0]}; {advice}, in one order"
        )
    if foreign.size:
        raise EvidenceError(
            f"{names} saw other images: {foreign.size} of {len(base)} differ, first image {foreign[0]}; {advice}"
        )
    relabelled = np.flatnonzero(base.labels != candidate.labels)
    if relabelled.size:
        raise EvidenceError(
            f"{names} saw the same images under other labels: {relabelled.size} of {len(base)}, first image "
            f"{relabelled[0]}; {advice}"
        )


def _base64(images: Images) -> str:
    return base64.b64encode(np.ascontiguousarray(images).tobytes()).decode()


def _pixels(text: str) -> Images:
    return np.frombuffer(base64.b64decode(text, validate=True), np.uint8).reshape(-1, SIDE, SIDE)


@dataclass(frozen=True, eq=False)
class Flipped:
    """Some of the flipped images: indices int64 [F] into the pairs, lost ones first, and uint8 images [F, 28, 28]."""

    indices: Answers = field(repr=False)
    images: Annotated[Images, AsText(_pixels, _base64)] = field(repr=False)

    def __post_init__(self) -> None:
        """Reject pictures that are not as many as their indices."""
        if len(self.indices) != len(self.images):
            raise EvidenceError("the pictures are not one for each index; gather the evidence again")


def flipped(pairs: Pairs, dataset: Dataset, *, most: int = 60) -> Flipped:
    """Return at most `most` flipped images of `dataset`, the lost ones first, then other flips, then gained ones."""
    changed = np.flatnonzero(pairs.flipped)
    rank = np.where(pairs.lost[changed], 0, np.where(pairs.gained[changed], 2, 1))
    indices = changed[np.argsort(rank, kind="stable")][:most]
    return Flipped(indices, dataset.images[indices])

"""Two evaluations of the same images, paired image by image, and the comparison of their accuracy."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.dataset import SIDE, Dataset, Images
from targets.preprocess import Preprocess
from targets.session import LARGEST, RuntimeFacts
from toolchain.core.errors import EvidenceError
from toolchain.core.json_codec import ArrayAsList, AsText, ByItself
from toolchain.evaluation.evaluate import Evaluation, distinct_rows
from toolchain.evaluation.metrics import cohen_kappa, confusion_matrix, most_confused
from toolchain.stats import paired_difference

Answers = Annotated[NDArray[np.int64], ArrayAsList("int64")]
SampleIds = Annotated[NDArray[np.bytes_], ArrayAsList("S32")]
Confidences = Annotated[NDArray[np.float32], ArrayAsList("float32")]


@dataclass(frozen=True)
class FileFacts:
    """A file that was evaluated, the runtime that ran it, and the preprocess of its images.

    preprocess_source: where `preprocess` comes from (`targets.artifact.PreprocessSource`), empty if not recorded.
    """

    name: str
    sha256: str
    bytes: int
    runtime: Annotated[RuntimeFacts, ByItself()]
    preprocess: Annotated[Preprocess, ByItself()]
    preprocess_source: str = ""

    def __post_init__(self) -> None:
        """Reject values that another program stored, or that were changed by hand."""
        kinds = [type(value) for value in vars(self).values()]
        if kinds != [str, str, int, RuntimeFacts, Preprocess, str] or not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise EvidenceError("the facts of a file have no name, digest, size or runtime; evaluate it again")
        if not 0 < self.bytes <= LARGEST:
            raise EvidenceError(f"{self.name}: no file has {self.bytes} bytes; evaluate it again")

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
        """The preprocess of the images, and where it comes from."""
        return f"{self.preprocess} ({self.preprocess_source or 'source not recorded'})"


class ComparedFiles(NamedTuple):
    """The facts of both files."""

    baseline: FileFacts
    candidate: FileFacts


@dataclass(frozen=True, eq=False)
class Pairs:
    """The answers of a baseline and of a candidate on the same images, in the same order.

    labels, before, after: int64 [N], indices into `classes`: the truth, the baseline's answer, the candidate's.
    before_confidence, after_confidence: float32 [N], the probability of each answer. sample_ids: S32 [N], the hash of
    each image, which equal images share.
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
    sample_ids: SampleIds = field(repr=False)

    def __post_init__(self) -> None:
        """Reject values that cannot be judged."""
        count, columns = len(self.labels), len(self.classes)
        arrays = (self.labels, self.before, self.after)
        if not all(isinstance(name, str) for name in (self.origin, self.dataset_sha256, *self.classes)):
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
                raise EvidenceError(f"{self.origin}: a confidence is not a probability; evaluate again")
        if self.sample_ids.shape != (count,):
            raise EvidenceError(f"{self.origin}: there is not one hash for each image; evaluate again")

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    @property
    def files(self) -> ComparedFiles:
        """The facts of both files."""
        return ComparedFiles(self.baseline, self.candidate)

    @cached_property
    def lost(self) -> NDArray[np.bool_]:
        """Which images only the baseline reads correctly, bool [N]."""
        return np.asarray(np.equal(self.before, self.labels) & np.not_equal(self.after, self.labels))

    @cached_property
    def gained(self) -> NDArray[np.bool_]:
        """Which images only the candidate reads correctly, bool [N]."""
        return np.asarray(np.not_equal(self.before, self.labels) & np.equal(self.after, self.labels))

    @cached_property
    def flipped(self) -> NDArray[np.bool_]:
        """Which images changed their answer, bool [N]."""
        return np.not_equal(self.before, self.after)

    @cached_property
    def once(self) -> Pairs:
        """The pairs with each different image once, as everything that is concluded of them counts.

        Of copies that do not say the same, because their labels differ, it is the one that says the worst of the
        candidate. So no copy, whatever its label, can make the candidate look better.
        """
        before, after = (np.equal(answers, self.labels) for answers in (self.before, self.after))
        # From the worst: lost, read wrongly by both, read rightly by both, gained.
        rows = distinct_rows(self.sample_ids, 2 * after.astype(np.int64) + ~before)
        if len(rows) == len(self):
            return self
        arrays = ("labels", "before", "after", "before_confidence", "after_confidence", "sample_ids")
        return replace(self, **{name: getattr(self, name)[rows] for name in arrays})

    @classmethod
    def of(cls, base: Evaluation, candidate: Evaluation) -> Pairs:
        """Pair two evaluations image by image.

        Raises EvidenceError when their classes, images, order or labels differ; the message says which.
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
            sample_ids=base.sample_ids,
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
        """Reject another number of pictures than of indices."""
        if len(self.indices) != len(self.images):
            raise EvidenceError("there is not one picture for each index; gather the evidence again")


def flipped(pairs: Pairs, dataset: Dataset) -> Flipped:
    """Return at most 60 flipped images of `dataset`, the lost ones first, then other flips, then gained ones."""
    changed = np.flatnonzero(pairs.flipped)
    rank = np.where(pairs.lost[changed], 0, np.where(pairs.gained[changed], 2, 1))
    indices = changed[np.argsort(rank, kind="stable")][:60]
    return Flipped(indices, dataset.images[indices])


CONFIDENCE = 0.95
_ROUNDING = 1e-9


def _equal(one: float, other: float) -> bool:
    return abs(one - other) <= _ROUNDING


def _counted(images: int, lost: int, gained: int, drop: float) -> bool:
    """Return whether these counts can be, and give this drop."""
    fits = min(images, lost, gained) >= 0 and lost + gained <= images
    return fits and _equal(drop, (lost - gained) / max(images, 1))


@dataclass(frozen=True)
class ClassDrop:
    """The images that one class lost and gained. drop: share of its images, positive when the candidate is worse."""

    label: str
    images: int
    lost: int
    gained: int
    drop: float


@dataclass(frozen=True)
class NewConfusion:
    """`extra` more images of `truth` are read as `read` by the candidate than by the baseline."""

    truth: str
    read: str
    extra: int

    def __str__(self) -> str:
        """Return `O read as 0: +14`."""
        return f"{self.truth} read as {self.read}: +{self.extra}"


@dataclass(frozen=True)
class Comparison:
    """The accuracy of a candidate and of its baseline on the same images.

    images: the different ones, each counted once; copies: how many more there were that equal one of them. lost,
    gained: images that only the baseline, only the candidate reads correctly. flips: images whose answer changed. drop:
    fall in accuracy, a fraction, positive when the candidate is worse. interval: its two-sided 95 % Tango score
    interval. lower, upper: its one-sided 95 % bounds. per_class: in the order of the classes. confusions: the ten most
    frequent new ones. baseline_input, candidate_input: `FileFacts.input` of each file, empty if not recorded. kappa:
    agreement of both files' answers beyond chance (`metrics.cohen_kappa`), None if not recorded.
    """

    baseline: str
    baseline_sha256: str
    baseline_bytes: int
    candidate: str
    candidate_sha256: str
    candidate_bytes: int
    origin: str
    dataset_sha256: str
    images: int
    lost: int
    gained: int
    flips: int
    baseline_accuracy: float
    candidate_accuracy: float
    drop: float
    interval: tuple[float, float]
    lower: float
    upper: float
    per_class: tuple[ClassDrop, ...]
    confusions: tuple[NewConfusion, ...]
    baseline_input: str = ""
    candidate_input: str = ""
    copies: int = 0
    kappa: float | None = None

    def __post_init__(self) -> None:
        """Reject figures that cannot be, or that do not follow from each other."""
        parts = [(row.images, row.lost, row.gained, row.drop) for row in self.per_class]
        counts, accuracies = (self.images, self.lost, self.gained), (self.baseline_accuracy, self.candidate_accuracy)
        bounds = self.interval, (self.lower, self.upper)
        holds = {
            "images, lost, gained and drop": all(_counted(*row) for row in (*parts, (*counts, self.drop))),
            "per_class": not parts or counts == tuple(sum(row[k] for row in parts) for k in range(3)),
            "images, copies and flips": 0 < self.images >= self.flips >= self.lost + self.gained and self.copies >= 0,
            "accuracies": min(accuracies) >= 0 and max(accuracies) <= 1 and _equal(-np.diff(accuracies)[0], self.drop),
            "interval, lower and upper": all(low - _ROUNDING <= self.drop <= high + _ROUNDING for low, high in bounds),
            "bytes": min(self.baseline_bytes, self.candidate_bytes) > 0,
        }
        if wrong := [what for what, fits in holds.items() if not fits]:
            raise EvidenceError(f"{self.baseline} and {self.candidate}: {wrong[0]} of their comparison cannot be")

    @property
    def discordance(self) -> float:
        """The share of images that only one of the two reads correctly."""
        return (self.lost + self.gained) / self.images

    def worst(self) -> tuple[ClassDrop, ...]:
        """Return the five classes with the largest net loss of images, worst first; only classes with a loss."""
        losers = [row for row in self.per_class if row.drop > 0]
        return tuple(sorted(losers, key=lambda row: (row.gained - row.lost, -row.drop))[:5])


def compare(base: Evaluation, candidate: Evaluation) -> Comparison:
    """Compare two evaluations of the same images; raises EvidenceError as `Pairs.of` does."""
    return comparison(Pairs.of(base, candidate))


def comparison(pairs: Pairs) -> Comparison:
    """Return the accuracy of both files, and what changed between them; each different image counts once."""
    copies, pairs = len(pairs) - len(pairs.once), pairs.once
    n, b, c = len(pairs), int(pairs.lost.sum()), int(pairs.gained.sum())
    return Comparison(
        baseline=pairs.baseline.name,
        baseline_sha256=pairs.baseline.sha256,
        baseline_bytes=pairs.baseline.bytes,
        candidate=pairs.candidate.name,
        candidate_sha256=pairs.candidate.sha256,
        candidate_bytes=pairs.candidate.bytes,
        origin=pairs.origin,
        dataset_sha256=pairs.dataset_sha256,
        images=n,
        lost=b,
        gained=c,
        flips=int(pairs.flipped.sum()),
        baseline_accuracy=_accuracy(pairs, pairs.before),
        candidate_accuracy=_accuracy(pairs, pairs.after),
        drop=(b - c) / n,
        interval=paired_difference.interval(b, c, n, CONFIDENCE),
        lower=float(paired_difference.lower_bound(b, c, n, CONFIDENCE)),
        upper=float(paired_difference.upper_bound(b, c, n, CONFIDENCE)),
        per_class=_per_class(pairs),
        confusions=_new_confusions(pairs),
        baseline_input=pairs.baseline.input,
        candidate_input=pairs.candidate.input,
        copies=copies,
        kappa=cohen_kappa(confusion_matrix(pairs.before, pairs.after, len(pairs.classes))),
    )


def _accuracy(pairs: Pairs, answers: Answers) -> float:
    return float(np.count_nonzero(answers == pairs.labels)) / len(pairs)


def _per_class(pairs: Pairs) -> tuple[ClassDrop, ...]:
    size = len(pairs.classes)
    chosen = (slice(None), pairs.lost, pairs.gained)
    images, away, back = (np.bincount(pairs.labels[selected], minlength=size) for selected in chosen)
    return tuple(
        ClassDrop(label, int(n), int(b), int(c), float(b - c) / max(int(n), 1))
        for label, n, b, c in zip(pairs.classes, images, away, back, strict=True)
    )


def _new_confusions(pairs: Pairs) -> tuple[NewConfusion, ...]:
    size = len(pairs.classes)
    before, after = (confusion_matrix(pairs.labels, answers, size) for answers in (pairs.before, pairs.after))
    return tuple(NewConfusion(*row) for row in most_confused(after - before, pairs.classes))

"""Evaluation: what the exported file itself answered on every image of a test split."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from dataclasses import asdict, dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.dataset import Dataset, Labels, chunks
from calibration.idx import announced_bytes, unpacks_to_too_much
from calibration.sample import image_hashes
from calibration.spec import advice, classes_text
from targets.errors import ArtifactError
from targets.host.text import json_value
from targets.preprocess import Preprocess
from targets.session import RuntimeFacts, Session
from toolchain.core.context import Progress, silent
from toolchain.core.errors import EvidenceError
from toolchain.core.files import refuse_other, whole_file

SCHEMA = "glyphpress/evaluation/1"
_ARRAYS = {"logits": np.float32, "labels": np.int64, "sample_ids": np.dtype("S32")}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The answers of one artifact on one data set, in the runtime that gave them.

    logits: float32 [N, K]. labels: int64 [N], an index into `classes`. sample_ids: S32 [N], the hash of each image
    (`calibration.sample.image_hashes`), by which two evaluations are paired. origin and dataset_sha256 name the
    data set. preprocess_source: what said how the file wants its images (`targets.artifact.PreprocessSource`), empty
    where an evaluation was saved before that was recorded. Raises EvidenceError when built from anything that cannot be
    judged.
    """

    artifact: str
    artifact_sha256: str
    artifact_bytes: int
    facts: RuntimeFacts
    preprocess: Preprocess
    origin: str
    dataset_sha256: str
    classes: tuple[str, ...]
    logits: NDArray[np.float32] = field(repr=False)
    labels: Labels = field(repr=False)
    sample_ids: NDArray[np.bytes_] = field(repr=False)
    preprocess_source: str = ""

    def __post_init__(self) -> None:
        """Reject answers that cannot be judged."""
        count, columns = len(self.labels), len(self.classes)
        if not count:
            raise EvidenceError(f"{self.artifact}: no images were evaluated on {self.origin}; give a split with images")
        shapes = self.logits.shape, self.sample_ids.shape, self.labels.shape
        if shapes != ((count, columns), (count,), (count,)):
            raise EvidenceError(
                f"{self.artifact}: logits, hashes and labels of the shapes {', '.join(map(str, shapes))} do not fit "
                f"{count} images and {columns} classes; evaluate again"
            )
        if not np.isfinite((self.logits.min(), self.logits.max())).all():
            raise EvidenceError(f"{self.artifact}: some logits are NaN or infinite; the file is broken, make it again")
        if self.labels.min() < 0 or self.labels.max() >= columns:
            raise EvidenceError(f"{self.origin}: a label lies outside the {columns} classes; check the data set")

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    @cached_property
    def predictions(self) -> NDArray[np.int64]:
        """The answered class of each image, int64 [N]."""
        best: NDArray[np.int64] = np.argmax(self.logits, axis=1)
        return best

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """Whether each image was read rightly, bool [N]."""
        return np.equal(self.predictions, self.labels)

    @cached_property
    def confidence(self) -> NDArray[np.float32]:
        """The probability that each image's answer was given with, float32 [N].

        The softmax of the logits; where a file ends in softmax itself (every row lies in 0 to 1 and sums to 1), its
        own answers.
        """
        best: NDArray[np.float32] = self.logits.max(axis=1)
        sums = self.logits.sum(axis=1, dtype=np.float64)
        # An 8-bit softmax rounds each of its probabilities by up to 1/512.
        if self.logits.min() >= 0 and np.abs(sums - 1).max() < 0.02 + len(self.classes) / 512:
            return np.asarray(np.minimum(best, 1), np.float32)
        # In parts, since a float64 copy of a million rows would be most of the memory.
        for part in chunks(len(self)):
            spread = np.exp(self.logits[part].astype(np.float64) - best[part, None]).sum(axis=1)
            best[part] = 1 / spread
        return best

    @property
    def accuracy(self) -> float:
        """The share of images read rightly."""
        return float(np.count_nonzero(self.right)) / len(self)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the arrays as JSON types."""
        # Left out where it is not known, so that the digests of older baselines stay what they are.
        source = {"preprocess_source": self.preprocess_source} if self.preprocess_source else {}
        return {
            "artifact": self.artifact,
            "artifact_sha256": self.artifact_sha256,
            "artifact_bytes": self.artifact_bytes,
            "facts": asdict(self.facts),
            "preprocess": self.preprocess.to_dict(),
            "origin": self.origin,
            "dataset_sha256": self.dataset_sha256,
            "classes": list(self.classes),
        } | source

    def save(self, path: Path, *, force: bool = False) -> None:
        """Write an `.npz` that `load` reads back to the same bits; raises UsageProblem over an existing file."""
        text = json.dumps({"schema": SCHEMA} | self.to_dict(), ensure_ascii=False)
        with whole_file(path, force=force) as part, part.open("wb") as stream:
            np.savez_compressed(
                stream, meta=np.array(text), logits=self.logits, labels=self.labels, sample_ids=self.sample_ids
            )

    @classmethod
    def load(cls, path: Path) -> Evaluation:
        """Read what `save` wrote; raises EvidenceError on anything else."""
        if not path.is_file():
            raise EvidenceError(f"{path}: no such file; `glyphpress evaluate ARTIFACT -o {path.name}` makes one")
        refuse_other(path, "evaluation", "baseline")
        try:
            stored = unpacked(path.read_bytes())
            meta = json_value(str(stored["meta"]))
            arrays = {key: stored[key] for key in _ARRAYS}
            if meta.pop("schema") != SCHEMA or any(arrays[key].dtype != kind for key, kind in _ARRAYS.items()):
                raise ValueError(f"expected {SCHEMA}")
            meta["facts"] = RuntimeFacts.from_dict(meta["facts"])
            meta["preprocess"] = Preprocess.from_dict(meta["preprocess"])
            meta["classes"] = tuple(meta["classes"])
            return cls(**meta, **arrays)
        except UNREADABLE as error:
            raise EvidenceError(
                f"{path}: not a saved evaluation ({error}); make it with `glyphpress evaluate ARTIFACT -o FILE.npz`"
            ) from error


def evaluate(session: Session, dataset: Dataset, *, batch: int = 256, progress: Progress = silent) -> Evaluation:
    """Run the opened file over every image of a data set.

    Raises EvidenceError for a data set without images or with other classes than the artifact's (`check_classes`),
    and RunFailed, from the session, when the runtime refuses or answers with what is not finite.
    """
    artifact, count = session.artifact, len(dataset)
    if not count:
        raise EvidenceError(f"{dataset.origin}: no images to evaluate on; give a split with images")
    check_classes(artifact.path.name, artifact.classes, dataset)
    logits = np.empty((count, len(dataset.classes)), dtype=np.float32)
    sample_ids = np.empty(count, "S32")
    for part in chunks(count, batch):
        images = dataset.images[part]
        logits[part], sample_ids[part] = session.run(images), image_hashes(images)
        progress(f"evaluate {artifact.path.name}", part.stop, count)
    return Evaluation(
        artifact=artifact.path.name,
        artifact_sha256=artifact.sha256,
        artifact_bytes=artifact.size,
        facts=session.facts,
        preprocess=artifact.preprocess,
        origin=dataset.origin,
        dataset_sha256=dataset.sha256,
        classes=dataset.classes,
        logits=logits,
        labels=np.asarray(dataset.labels, dtype=np.int64),
        sample_ids=sample_ids,
        preprocess_source=artifact.preprocess_source,
    )


def check_classes(name: str, classes: tuple[str, ...], dataset: Dataset) -> None:
    """Raise EvidenceError unless the model's classes are the data set's, in order; the message names the first gap.

    EMNIST's letters merge both cases, so models name them `A` or `a`: case is ignored, but only where neither side
    holds a letter in both cases.
    """
    ours, theirs = tuple(classes), tuple(dataset.classes)
    folded = [tuple(label.casefold() for label in side) for side in (ours, theirs)]
    unambiguous = all(len(set(side)) == len(side) for side in folded)
    if ours == theirs or (unambiguous and folded[0] == folded[1]):
        return
    if len(ours) != len(theirs):
        raise EvidenceError(
            f"{name} reads {len(ours)} classes, {dataset.origin} has {len(theirs)}; {advice(ours, theirs)}"
        )
    k = next(i for i, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1])
    order, fix = "other classes", "give the data it was trained for"
    if sorted(ours) == sorted(theirs):
        order, fix = (
            "the same classes in another order",
            f"give the data in its order with --classes {classes_text(ours)}",
        )
    raise EvidenceError(
        f"{name} and {dataset.origin} have {order}: class {k} is '{ours[k]}' in the model, '{theirs[k]}' in the data; "
        f"{fix}, or export it again with its own classes"
    )


UNREADABLE = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    EOFError,
    RuntimeError,  # zipfile, of what it cannot unpack
    zipfile.BadZipFile,
    zlib.error,
    ArtifactError,
)
"""What reading a file that is damaged, or another one than was expected, may raise."""


def unpacked(content: bytes) -> dict[str, Any]:
    """Return the arrays of an `.npz`; raises one of `UNREADABLE` where it is damaged.

    Every checksum is looked at first, since numpy parses a header before its bytes are known to be whole. From memory,
    where a wrong offset cannot look like an error of the disk. Sizes come before both.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        parts = packed.infolist()
        if unpacks_to_too_much(total := announced_bytes(parts), len(content)):
            raise ValueError(f"{len(content):,} bytes that unpack to {total:,} are no result of ours")
        for part in parts:
            _refuse_false_header(packed, part)
        if damaged := packed.testzip():
            raise zipfile.BadZipFile(f"{damaged} is damaged")
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        return dict(stored)


def _refuse_false_header(packed: zipfile.ZipFile, part: zipfile.ZipInfo) -> None:
    """Raise ValueError where an array's header asks for more memory than its part unpacks to."""
    with packed.open(part) as stream:
        version = np.lib.format.read_magic(stream)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise ValueError(f"{part.filename} is an array of another version of numpy")
        shape, _, dtype = readers[version](stream)
    if prod(shape) * dtype.itemsize > part.file_size:
        raise ValueError(f"{part.filename} says that it holds {shape}, in {part.file_size:,} bytes")

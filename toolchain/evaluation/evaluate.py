"""Evaluation: what a model file answered on every image of a test split, in memory and in an `.npz`."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.dataset import Dataset, Labels, chunks
from calibration.idx import announced_bytes, unpacks_to_too_much
from calibration.sample import image_hashes
from calibration.spec import advice
from glyphpress.registry import Plugin, loaded
from targets.errors import ArtifactError
from targets.host.text import json_value
from targets.preprocess import Preprocess
from targets.session import RuntimeFacts, Session
from toolchain.core.context import Progress, silent
from toolchain.core.errors import EvidenceError
from toolchain.core.files import refuse_other, whole_file
from toolchain.core.quantities import counted
from toolchain.evaluation.batches import reads_alike_in_batches

SCHEMA = "glyphpress/evaluation/1"
_ARRAYS = {"logits": np.float32, "labels": np.int64, "sample_ids": np.dtype("S32")}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The answers of one artifact on one data set, in one runtime.

    logits: float32 [N, K]. labels: int64 [N], an index into `classes`. sample_ids: S32 [N], the hash of each image
    (`calibration.sample.image_hashes`), by which two evaluations are paired; equal images have the same. origin and
    dataset_sha256 name the data set. preprocess_source: where `preprocess` comes from
    (`targets.artifact.PreprocessSource`), empty in evaluations that were saved before this was recorded. plugins:
    those whose code took part. one_by_one: whether each image was read alone, since the artifact answers otherwise in a
    batch. class_order: the classes as the file's columns have them, where that is another order than that of `classes`,
    in which the logits are; empty otherwise. Raises EvidenceError for values that cannot be judged.
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
    plugins: tuple[Plugin, ...] = ()
    one_by_one: bool = False
    class_order: tuple[str, ...] = ()

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
            raise EvidenceError(f"{self.artifact}: some of its logits are NaN or infinite; evaluate it again")
        if self.labels.min() < 0 or self.labels.max() >= columns:
            raise EvidenceError(f"{self.origin}: a label lies outside the {columns} classes; check the data set")
        if self.class_order and sorted(self.class_order) != sorted(self.classes):
            raise EvidenceError(f"{self.artifact}: the order of its columns does not name the classes; evaluate again")

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    @property
    def column_classes(self) -> tuple[str, ...]:
        """The classes in the order of the file's own columns."""
        return self.class_order or self.classes

    @cached_property
    def predictions(self) -> NDArray[np.int64]:
        """The answered class of each image, int64 [N]."""
        best: NDArray[np.int64] = np.argmax(self.logits, axis=1)
        return best

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """Whether each image was read correctly, bool [N]."""
        return np.equal(self.predictions, self.labels)

    @cached_property
    def confidence(self) -> NDArray[np.float32]:
        """The probability of each image's answer, float32 [N].

        The softmax of the logits; where a file ends in softmax itself (every row lies in 0 to 1 and sums to 1), its
        own answers.
        """
        best: NDArray[np.float32] = self.logits.max(axis=1)
        if self._are_probabilities:
            return np.asarray(np.minimum(best, 1), np.float32)
        # In chunks, since a float64 copy of a million rows would fill most of the memory.
        for part in chunks(len(self)):
            spread = np.exp(self.logits[part].astype(np.float64) - best[part, None]).sum(axis=1)
            best[part] = 1 / spread
        return best

    def probabilities(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the probability of each class for some of the images, float64 [rows, K], as `confidence` has it."""
        answers = self.logits[rows].astype(np.float64)
        if self._are_probabilities:
            return answers
        spread = np.exp(answers - answers.max(axis=1, keepdims=True))
        return np.asarray(spread / spread.sum(axis=1, keepdims=True))

    @cached_property
    def _are_probabilities(self) -> bool:
        return are_probabilities(self.logits)

    @cached_property
    def once(self) -> Evaluation:
        """The evaluation with each different image once: of copies under other labels, one that is read wrongly."""
        rows = distinct_rows(self.sample_ids, self.right)
        if len(rows) == len(self):
            return self
        return replace(self, **{name: getattr(self, name)[rows] for name in _ARRAYS})

    @property
    def accuracy(self) -> float:
        """The share of the different images (`once`) that is read correctly."""
        return float(np.count_nonzero(self.once.right)) / len(self.once)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the arrays as JSON types."""
        # Left out where it is not known, so that the digests of older baselines stay valid.
        source: dict[str, Any] = {"preprocess_source": self.preprocess_source} if self.preprocess_source else {}
        source |= {"plugins": [asdict(plugin) for plugin in self.plugins]} if self.plugins else {}
        source |= {"one_by_one": True} if self.one_by_one else {}
        source |= {"class_order": list(self.class_order)} if self.class_order else {}
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
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        save_npz(path, {"schema": SCHEMA} | self.to_dict(), arrays, force=force)

    @classmethod
    def load(cls, path: Path) -> Evaluation:
        """Read what `save` wrote; raises EvidenceError on anything else."""
        if not path.is_file():
            raise EvidenceError(f"{path}: no such file; `glyphpress evaluate ARTIFACT -o {path.name}` makes one")
        refuse_other(path, SCHEMA, "glyphpress/baseline/1")
        try:
            stored = unpacked(path.read_bytes())
            meta = json_value(str(stored["meta"]))
            if meta.pop("schema") != SCHEMA or any(stored[name].dtype != dtype for name, dtype in _ARRAYS.items()):
                raise ValueError(f"expected {SCHEMA}")
            return cls.of_parts(meta, stored)
        except UNREADABLE as error:
            raise EvidenceError(
                f"{path}: not a saved evaluation ({error}); make it with `glyphpress evaluate ARTIFACT -o FILE.npz`"
            ) from error

    @classmethod
    def of_parts(cls, values: dict[str, Any], arrays: Mapping[str, Any]) -> Evaluation:
        """Return the evaluation of which `values` is `to_dict`; raises one of `UNREADABLE` for anything else."""
        read = {
            "facts": RuntimeFacts.from_dict(values["facts"]),
            "preprocess": Preprocess.from_dict(values["preprocess"]),
            "classes": tuple(values["classes"]),
            "plugins": tuple(Plugin(**plugin) for plugin in values.get("plugins", ())),
            "class_order": tuple(values.get("class_order", ())),
        }
        return cls(**values | read, **{name: arrays[name] for name in _ARRAYS})


def are_probabilities(answers: NDArray[np.float32]) -> bool:
    """Return whether answers [N, K] are probabilities and not logits, as of a file that ends in softmax itself."""
    sums = answers.sum(axis=1, dtype=np.float64)
    # An 8-bit softmax rounds each of its probabilities by up to 1/512.
    return bool(answers.min() >= 0 and np.abs(sums - 1).max() < 0.02 + answers.shape[1] / 512)


def distinct_rows(sample_ids: NDArray[np.bytes_], rank: NDArray[Any]) -> NDArray[np.int64]:
    """Return a row of each different image, int64 in ascending order: of equal images the first of the lowest rank.

    A copy says nothing that the image has not said already; counted again, it makes every interval too narrow.
    """
    if len(np.unique(sample_ids)) == len(sample_ids):
        return np.arange(len(sample_ids))
    by_rank = np.argsort(rank, kind="stable")
    rows: NDArray[np.int64] = np.sort(by_rank[np.unique(sample_ids[by_rank], return_index=True)[1]])
    return rows


def evaluate(session: Session, dataset: Dataset, *, batch: int = 256, progress: Progress = silent) -> Evaluation:
    """Run the opened file on every image of a data set, in batches unless it reads otherwise alone.

    Classes are matched by their names (`columns_of`); the logits have the order of the data set.

    Raises EvidenceError for a data set without images or with other classes than the artifact's (`check_classes`), or
    a file that answers the same images differently each time. The session raises RunFailed when the runtime fails or
    returns NaN or infinity.
    """
    artifact, count = session.artifact, len(dataset)
    columns = columns_of(artifact.path.name, artifact.classes, dataset)
    logits = np.empty((count, len(dataset.classes)), dtype=np.float32)
    sample_ids = np.empty(count, "S32")
    in_batches = not count or reads_alike_in_batches(session, dataset.images)
    for part in chunks(count, batch if in_batches else 1):
        images = dataset.images[part]
        logits[part], sample_ids[part] = session.run(images)[:, columns], image_hashes(images)
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
        plugins=loaded(),
        one_by_one=not in_batches,
        class_order=() if isinstance(columns, slice) else artifact.classes,
    )


def columns_of(name: str, classes: tuple[str, ...], dataset: Dataset) -> NDArray[np.int64] | slice:
    """Return where the classes of a data set stand in the answers of a model that names its classes in another order.

    It is an index of columns. Raises as `check_classes` does.
    """
    check_classes(name, classes, dataset)
    if classes == dataset.classes or set(classes) != set(dataset.classes):
        return slice(None)
    return np.array([classes.index(label) for label in dataset.classes], np.int64)


def check_classes(name: str, classes: tuple[str, ...], dataset: Dataset) -> None:
    """Raise EvidenceError unless the model's classes are the data set's; it names the first difference.

    EMNIST's letters merge both cases, so models name them `A` or `a`: case is ignored if neither side has a letter in
    both cases.
    """
    ours, theirs = classes, dataset.classes
    ours_folded, theirs_folded = ([label.casefold() for label in side] for side in (ours, theirs))
    unambiguous = len(set(ours_folded)) == len(ours)
    if sorted(ours) == sorted(theirs) or (unambiguous and ours_folded == theirs_folded):
        return
    if len(ours) != len(theirs):
        chosen = "[" in dataset.origin and set(theirs) < set(ours)
        fix = "it answers with all of its classes, so leave the choice out" if chosen else advice(ours, theirs)
        raise EvidenceError(
            f"{name} reads {counted(len(ours), 'class', 'classes')}, {dataset.origin} has {len(theirs)}; {fix}"
        )
    k = next(i for i, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1])
    raise EvidenceError(
        f"{name} and {dataset.origin} have different classes: class {k} is '{ours[k]}' in the model, '{theirs[k]}' in "
        "the data; give the data it was trained for, or export it again with its own classes"
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
"""What reading an `.npz` that is damaged, or is not the expected one, may raise."""


def save_npz(path: Path, meta: dict[str, Any], arrays: Mapping[str, Any], *, force: bool = False) -> None:
    """Write arrays and `meta`, as JSON, to an `.npz`; raises UsageProblem over an existing file."""
    text = np.array(json.dumps(meta, ensure_ascii=False, allow_nan=False))
    with whole_file(path, force=force) as part, part.open("wb") as stream:
        np.savez_compressed(stream, meta=text, **arrays)


def unpacked(content: bytes) -> dict[str, Any]:
    """Return the arrays of an `.npz`; raises one of `UNREADABLE` where it is damaged.

    Sizes are checked first, then every checksum, since numpy parses headers before it checks them. It is read from
    memory, where a wrong offset cannot look like a disk error.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        parts = packed.infolist()
        if unpacks_to_too_much(total := announced_bytes(parts), len(content)):
            raise ValueError(f"{len(content):,} bytes unpack to {total:,}, so it is not a file of glyphpress")
        for part in parts:
            _refuse_oversized(packed, part)
        if damaged := packed.testzip():
            raise zipfile.BadZipFile(f"{damaged} is damaged")
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        return dict(stored)


def _refuse_oversized(packed: zipfile.ZipFile, part: zipfile.ZipInfo) -> None:
    """Raise ValueError where an array's header asks for more memory than its part unpacks to."""
    with packed.open(part) as stream:
        version = np.lib.format.read_magic(stream)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise ValueError(f"{part.filename} has the array format of another version of numpy")
        shape, _, dtype = readers[version](stream)
    if prod(shape) * dtype.itemsize > part.file_size:
        raise ValueError(f"{part.filename} claims the shape {shape} in {part.file_size:,} bytes")

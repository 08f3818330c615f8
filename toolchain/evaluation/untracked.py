"""Opens any model file that can be judged: an artifact, or a user's own .onnx or .tflite without a sidecar."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from calibration.dataset import Dataset
from calibration.errors import DataNotFound, EmptyData
from calibration.load import load
from targets import catalog
from targets.artifact import Artifact, sidecar_of
from targets.host.runtime_session import RuntimeSession
from targets.host.text import argument
from targets.metadata import adopt, describe, explained, load_artifact
from targets.preprocess import Preprocess
from toolchain.checkpoint.preprocess_search import SEARCH_IMAGES, PreprocessFinding, search, tie_message
from toolchain.core.errors import CheckpointError, EvidenceError
from toolchain.core.files import refuse_existing, write_whole

Training = Callable[[], Dataset]
"""Loads the training images; called only if a file has no sidecar."""


def training_images(data: str, data_root: Path | None = None) -> Training:
    """Return a function that loads the train split of the data set `data`, a spec as in `load`.

    The function raises EvidenceError if there are no training images: nothing may be fitted to the test images.
    """

    def train() -> Dataset:
        try:
            return load(data, "train", data_root)
        except (DataNotFound, EmptyData) as error:
            raise EvidenceError(
                f"how it wants its images is found on training images only, and {data} has none ({error}); say it "
                f"once with `glyphpress adopt FILE --data {data} --orientation upright --scale 0-1`"
            ) from error

    return train


def open_artifact(path: Path, train: Training | None, *, likely: Preprocess | None = None) -> Artifact:
    """Return a model file as an artifact; without a sidecar its preprocess is searched on training images.

    train: loads labelled training images, whose classes become the file's. likely: as in `search`. Raises ArtifactError
    for a file that is no model, EvidenceError if there are no training images, and CheckpointError if no preprocess
    fits, or two fit equally well (mean and std included): a verdict must not rest on a guess.
    """
    if explained(path):
        return load_artifact(path)
    if train is None:
        raise EvidenceError(
            f"{path}: no sidecar says how it wants its images; add --data, so that it can be found on the train split, "
            f"or say it with `glyphpress adopt {argument(path)} --data DATA --orientation upright --scale 0-1`"
        )
    try:
        images = train()
    except EvidenceError as error:
        raise EvidenceError(f"{path}: no sidecar says how it wants its images; {error}") from error
    artifact, finding = _adopted_by_search(path, images, likely)
    if finding.undecided:
        raise _adoptable(path, tie_message((finding.winner, *finding.undecided), finding.images))
    return artifact


def open_described(path: Path) -> Artifact:
    """Return a model file that a sidecar describes, where nothing is searched.

    Raises ArtifactError for a file that is no model, and EvidenceError for one that nothing describes.
    """
    if not explained(path):
        raise EvidenceError(
            f"{path}: no sidecar says which classes it reads and how it wants its images; say it once with "
            f"`glyphpress adopt {argument(path)} --data DATA`"
        )
    return load_artifact(path)


def write_sidecar(
    path: Path, dataset: Dataset, preprocess: Preprocess | None = None, *, force: bool = False
) -> Artifact:
    """Write the sidecar of a model file, with the given preprocess or a searched one; raises as `open_artifact`.

    dataset: gives the classes; without a preprocess it must be a train split.
    """
    refuse_existing(sidecar_of(path), force=force)
    if preprocess is None:
        artifact, _ = _adopted_by_search(path, dataset)
    else:
        artifact = adopt(path, preprocess=preprocess, classes=dataset.classes)
        artifact = replace(artifact, notes=("preprocess as given",))
    write_whole(artifact.sidecar, artifact.description(), force=force)
    return artifact


def _adopted_by_search(
    path: Path, dataset: Dataset, likely: Preprocess | None = None
) -> tuple[Artifact, PreprocessFinding]:
    if dataset.split != "train":
        raise EvidenceError(
            f"{path}: {dataset.origin} is a test split, to which nothing may be fitted; give training images"
        )
    plain = adopt(path, preprocess=Preprocess(label_offset=_spare_columns(path, dataset)), classes=dataset.classes)
    chosen = np.random.default_rng(0).permutation(len(dataset))[:SEARCH_IMAGES]
    with catalog.default_for(plain.format).open(plain, threads=0) as session:
        assert isinstance(session, RuntimeSession), "the default targets run in this process"
        try:
            images, labels = dataset.images[chosen], dataset.labels[chosen]
            finding = search(session.answer, images, labels, classes=dataset.classes, likely=likely)
        except CheckpointError as error:
            raise _adoptable(path, str(error)) from error
    artifact = adopt(path, preprocess=finding.winner, classes=dataset.classes)
    return replace(artifact, notes=(f"preprocess {finding.sentence()}",), preprocess_source="searched"), finding


def _adoptable(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path}: {reason}; options go to `glyphpress adopt {argument(path)} --data DATA`")


def _spare_columns(path: Path, dataset: Dataset) -> int:
    """Return the label offset, 1 if the outputs have one more column than classes: EMNIST's letters count from 1."""
    _, outputs = describe(path)
    return int(len(dataset.classes) + 1 in [spec.shape[-1] for spec in outputs if spec.shape])

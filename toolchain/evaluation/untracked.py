"""Opening any file that can be judged: one of our artifacts, or a user's own .onnx or .tflite without a sidecar."""

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
"""Gives the training images, which are read only where a file must be explained by them."""


def training_images(data: str, data_root: Path | None = None) -> Training:
    """Return a function that loads the train split of a data set, given as `load` takes it.

    Its call raises EvidenceError where only test images are there: what is judged on them must not be fitted to them.
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
    """Return the artifact that a file is; for one that no sidecar explains, find how it wants its images.

    train: gives labelled training images to find it on; their classes are taken for the file's. likely: as in `search`.
    Raises ArtifactError for what is no model file, EvidenceError when there are no such images, and CheckpointError
    when the file reads the images in no way, or in two ways equally well, mean and std included: a verdict must not
    rest on a guess.
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


def write_sidecar(
    path: Path, dataset: Dataset, preprocess: Preprocess | None = None, *, force: bool = False
) -> Artifact:
    """Adopt a file for good: write its sidecar, with the preprocess given or found; raises as `open_artifact`.

    dataset: names the classes; without a preprocess it must be training images.
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
            f"{path}: {dataset.origin} are images to judge on, on which nothing may be fitted; give training images"
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
    """Return how many columns the file answers beyond the classes: letters models may keep EMNIST's 1 to 26."""
    _, outputs = describe(path)
    return int(len(dataset.classes) + 1 in [spec.shape[-1] for spec in outputs if spec.shape])

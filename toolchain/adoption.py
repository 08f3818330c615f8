"""Any file that can be judged: one of our artifacts, or a user's own .onnx or .tflite that nothing explains."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from calibration.dataset import Dataset
from targets import catalog
from targets.artifact import Artifact, adopt, describe, explained, load_artifact, sidecar_of
from targets.preprocess import Preprocess
from targets.session import RuntimeSession
from toolchain.errors import CheckpointError, EvidenceError
from toolchain.files import refuse_existing, write_whole
from toolchain.preprocess_search import SEARCH_IMAGES, search


def open_artifact(path: Path, dataset: Dataset | None) -> Artifact:
    """Return the artifact that a file is; for one that no sidecar explains, find how it wants its images.

    dataset: labelled images to find it on; its classes are taken for the file's. Raises ArtifactError for what is no
    model file, EvidenceError when there is no data to explain it by, and CheckpointError when the file reads the
    images in no way, or in two ways equally well.
    """
    if explained(path):
        return load_artifact(path)
    if dataset is None:
        raise EvidenceError(f"{path}: no sidecar says how it wants its images; add --data, so that it can be found")
    return _found(path, dataset)


def write_sidecar(
    path: Path, dataset: Dataset, preprocess: Preprocess | None = None, *, force: bool = False
) -> Artifact:
    """Adopt a file for good: write its sidecar, with the preprocess given or found; raises as `open_artifact`."""
    refuse_existing(sidecar_of(path), force=force)
    if preprocess is None:
        artifact = _found(path, dataset)
    else:
        artifact = adopt(path, preprocess=preprocess, classes=dataset.classes)
        artifact = replace(artifact, notes=("preprocess as given",))
    write_whole(artifact.sidecar, artifact.description(), force=force)
    return artifact


def _found(path: Path, dataset: Dataset) -> Artifact:
    plain = adopt(path, preprocess=Preprocess(label_offset=_spare_columns(path, dataset)), classes=dataset.classes)
    chosen = np.random.default_rng(0).permutation(len(dataset))[:SEARCH_IMAGES]
    with catalog.default_for(plain.format).open(plain, threads=0) as session:
        assert isinstance(session, RuntimeSession), "the default targets run in this process"
        try:
            found = search(session.answer, dataset.images[chosen], dataset.labels[chosen], classes=dataset.classes)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}, in `glyphpress adopt {path.name}`") from error
    return replace(
        adopt(path, preprocess=found.winner, classes=dataset.classes), notes=(f"preprocess {found.sentence()}",)
    )


def _spare_columns(path: Path, dataset: Dataset) -> int:
    """Return how many columns the file answers beyond the classes: letters models may keep EMNIST's 1 to 26."""
    _, outputs = describe(path)
    return int(len(dataset.classes) + 1 in [spec.shape[-1] for spec in outputs if spec.shape])

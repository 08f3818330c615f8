"""Artifact: a model file and the sidecar that says what it is."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from targets.errors import ArtifactError
from targets.preprocess import Preprocess

Format = Literal["onnx", "tflite"]
SCHEMA = "glyphpress/artifact/1"
ONNX_METADATA_KEY = "glyphpress"


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and dtype of an input or output; a dynamic axis is -1."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Artifact:
    """A file that can be shipped, and everything needed to judge it.

    path is the file; its sidecar is `<path>.json`. sha256 is the digest of the file's bytes. `classes` are the
    characters that the logits stand for, in order. `recipe` names how it was made (`float` for the export itself),
    `parent_sha256` the checkpoint or artifact that it was made from, `calibration` the digest, size and seed of the
    calibration set (None where none was used), `tools` the versions of the packages that made it.
    """

    path: Path
    format: Format
    sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preprocess: Preprocess
    classes: tuple[str, ...]
    recipe: str = "float"
    parent_sha256: str | None = None
    calibration: dict[str, Any] | None = None
    tools: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Return the file's size in bytes."""
        return self.path.stat().st_size

    @property
    def sidecar(self) -> Path:
        """Return the path of the JSON sidecar."""
        return self.path.with_name(self.path.name + ".json")

    def facts(self) -> dict[str, Any]:
        """Return everything but the path as JSON types."""
        facts = asdict(replace(self, path=Path()))
        del facts["path"]
        return {"schema": SCHEMA, "file": self.path.name, "bytes": self.size} | facts


def file_sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def load_artifact(path: Path) -> Artifact:
    """Read an artifact from its file and sidecar.

    Raises ArtifactError when the file or sidecar is missing or unreadable, or when the digest does not match.
    """
    sidecar = path.with_name(path.name + ".json")
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file; give an .onnx or .tflite artifact")
    if not sidecar.is_file():
        raise ArtifactError(f"{sidecar}: no sidecar; make one with `glyphpress export` or `glyphpress press`")
    try:
        facts = json.loads(sidecar.read_text())
        specs = {
            key: tuple(TensorSpec(s["name"], tuple(s["shape"]), s["dtype"]) for s in facts[key])
            for key in ("inputs", "outputs")
        }
        artifact = Artifact(
            path=path,
            format=facts["format"],
            sha256=facts["sha256"],
            preprocess=Preprocess.from_dict(facts["preprocess"]),
            classes=tuple(facts["classes"]),
            recipe=facts["recipe"],
            parent_sha256=facts["parent_sha256"],
            calibration=facts["calibration"],
            tools=facts["tools"],
            notes=tuple(facts["notes"]),
            **specs,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{sidecar}: not a glyphpress sidecar ({error!r}); export the model again") from error
    if file_sha256(path) != artifact.sha256:
        raise ArtifactError(f"{path}: changed since its sidecar was written; export or quantize it again")
    return artifact

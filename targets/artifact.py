"""Artifact: a model file and the sidecar that says what it is."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

from targets.errors import ArtifactError, translated
from targets.fidelity import Fidelity
from targets.preprocess import Preprocess
from targets.results import instead_of
from targets.terminal_text import json_text, json_value

Format = Literal["onnx", "ort", "tflite"]
PreprocessSource = Literal["sidecar", "file metadata", "options", "searched"]
"""What says how a file wants its images: the JSON beside it, itself, the user, or a search on training images."""
SCHEMA = "glyphpress/artifact/1"
ONNX_METADATA_KEY = "glyphpress"


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and dtype of an input or output; a dynamic axis is -1.

    An integer q stands for `scale * (q - zero_point)`, as ONNX's QuantizeLinear and LiteRT's specification have it;
    both are None for floats, and for integers that stand for themselves.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True)
class Artifact:
    """A file that can be shipped, and everything needed to judge it.

    path is the file; its sidecar is `<path>.json`. sha256 is the digest of the file's bytes. `classes` are the
    characters that the logits stand for, in order. `recipe` names how it was made (`float` for the export itself),
    `parent_sha256` the checkpoint or artifact that it was made from, `checkpoint_sha256` the checkpoint that its line
    began with (None where that is not known), `calibration` the digest, size and seed of the calibration set (None
    where none was used), `tools` the versions of the packages that made it, `fidelity` how a quantized file answers
    against its float file (None of a float file, and where there were no images to compare on). `preprocess_source` is
    of this reading of the file, so no sidecar holds it.
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
    checkpoint_sha256: str | None = None
    preprocess_source: PreprocessSource = field(default="sidecar", compare=False)
    fidelity: Fidelity | None = None

    @property
    def size(self) -> int:
        """Return the file's size in bytes."""
        return self.path.stat().st_size

    @property
    def sidecar(self) -> Path:
        """Return the path of the JSON sidecar."""
        return sidecar_of(self.path)

    def description(self) -> str:
        """Return the text of the JSON sidecar."""
        return json_text(self.facts(), indent=2) + "\n"

    def facts(self) -> dict[str, Any]:
        """Return everything but the path as JSON types: the sidecar."""
        facts = asdict(replace(self, path=Path()))
        del facts["path"], facts["preprocess_source"]
        about = {"schema": SCHEMA, "file": self.path.name, "bytes": self.size}
        return about | facts | {"duties": self.preprocess.duties()}


def file_sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def utf8(path: Path) -> bool:
    """Return whether a name is UTF-8, as the libraries in C++ want it that open models."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def file_format(path: Path) -> Format:
    """Return the format that the name says; raises ArtifactError where there is no such file or it is another kind."""
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file; give an .onnx, .ort or .tflite file")
    if not utf8(path):
        raise ArtifactError(f"{path}: the name is not UTF-8, so the runtimes cannot open it; rename the file")
    kind = path.suffix.lower().removeprefix(".")
    if kind not in get_args(Format):
        if words := instead_of(path):
            raise ArtifactError(f"{path} {words}")
        raise ArtifactError(f"{path}: neither .onnx, .ort nor .tflite; give an exported model")
    if path.stat().st_size == 0:
        raise ArtifactError(f"{path}: is empty; export the model again")
    return cast(Format, kind)


def sidecar_of(path: Path) -> Path:
    """Return where the sidecar of a model file stands."""
    return path.with_name(path.name + ".json")


def save_sidecar(artifact: Artifact) -> Path:
    """Write `<path>.json` whole or not at all, over an earlier one of the same file, and return its path."""
    with tempfile.TemporaryDirectory(prefix=".glyphpress-", dir=artifact.path.parent) as folder:
        part = Path(folder) / artifact.sidecar.name
        part.write_text(artifact.description(), encoding="utf-8", errors="backslashreplace")
        part.replace(artifact.sidecar)
    return artifact.sidecar


def explained(path: Path) -> bool:
    """Return whether a sidecar, or metadata in the file, says what it is; raises ArtifactError."""
    kind = file_format(path)
    return sidecar_of(path).is_file() or bool(_told(path, kind))


def load_artifact(path: Path) -> Artifact:
    """Read an artifact from its file and sidecar, or from its own metadata where an .onnx or .ort file has no sidecar.

    Raises ArtifactError when the file is missing or unreadable, nothing says what it is, the sidecar is that of other
    bytes, or an .onnx asks for more memory than any reader of characters.
    """
    kind = file_format(path)
    if kind == "onnx":
        from targets.onnxruntime.onnx_sizes import refuse_huge

        refuse_huge(path)
    sidecar = sidecar_of(path)
    if not explained(path):
        raise ArtifactError(f"{sidecar}: no sidecar; make one with `glyphpress export` or `glyphpress press`")
    source = sidecar if sidecar.is_file() else path
    sha256 = file_sha256(path)
    try:
        with translated(ArtifactError):
            facts = json_value(sidecar.read_bytes()) if source == sidecar else _embedded_facts(path, sha256)
            artifact = from_facts(path, facts)
    except ArtifactError as error:
        raise ArtifactError(f"{source}: not glyphpress metadata ({error}); export the model again") from error
    if (sha256, kind) != (artifact.sha256, artifact.format):
        raise ArtifactError(
            f"{path}: not the bytes that {sidecar.name} describes; export or quantize it again, or describe a file of "
            "your own anew: `glyphpress adopt --force`"
        )
    return artifact if source == sidecar else replace(artifact, preprocess_source="file metadata")


def adopt(path: Path, *, preprocess: Preprocess, classes: tuple[str, ...]) -> Artifact:
    """Return the artifact of a user's own .onnx, .ort or .tflite file that has no sidecar; nothing is written.

    Its recipe is `foreign`. Raises ArtifactError when the file cannot be read, or no output can hold the classes.
    """
    inputs, outputs = describe(path)
    expected = preprocess.label_offset + len(classes)
    widths = [spec.shape[-1] if spec.shape else 0 for spec in outputs]
    if expected not in widths and -1 not in widths:
        raise ArtifactError(
            f"{path}: outputs are {widths} wide, but {len(classes)} classes with label offset "
            f"{preprocess.label_offset} need {expected}; name the data set or label offset it was trained with, "
            "or choose its classes with --classes"
        )
    artifact = Artifact(path, file_format(path), file_sha256(path), inputs, outputs, preprocess, classes)
    return replace(artifact, recipe="foreign", preprocess_source="options")


def describe(path: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return the inputs and outputs that a file of any format declares; raises ArtifactError."""
    kind = file_format(path)
    if kind == "tflite":
        from targets.litert.cpu import described
    elif kind == "ort":
        from targets.onnxruntime.ort_file import described
    else:
        from targets.onnxruntime.onnx_file import described
    return described(path)


def _told(path: Path, kind: Format) -> str:
    """Return what a file holds under ONNX_METADATA_KEY, or an empty string; a .tflite holds nothing."""
    if kind == "tflite":
        return ""
    if kind == "ort":
        from targets.onnxruntime.ort_file import metadata
    else:
        from targets.onnxruntime.onnx_file import metadata
    return metadata(path).get(ONNX_METADATA_KEY, "")


def _embedded_facts(path: Path, sha256: str) -> dict[str, Any]:
    """Return a sidecar's facts: the file's metadata says how it was made, its graph and bytes the rest."""
    kind = file_format(path)
    made: dict[str, Any] = json_value(_told(path, kind))
    inputs, outputs = (tuple(map(asdict, specs)) for specs in describe(path))
    return made | {"format": kind, "sha256": sha256, "inputs": inputs, "outputs": outputs}


def from_facts(path: Path, facts: dict[str, Any]) -> Artifact:
    """Rebuild from `Artifact.facts` without a look at the file.

    Raises ValueError, KeyError, TypeError or ArtifactError, as the facts are wrong.
    """
    if facts["schema"] != SCHEMA:
        raise ValueError(f"schema {facts['schema']}, this version reads {SCHEMA}")
    made = Artifact(
        path=path,
        format=facts["format"],
        sha256=facts["sha256"],
        inputs=tuple(_spec(spec) for spec in facts["inputs"]),
        outputs=tuple(_spec(spec) for spec in facts["outputs"]),
        preprocess=Preprocess.from_dict(facts["preprocess"]),
        classes=tuple(facts["classes"]),
        recipe=facts["recipe"],
        parent_sha256=facts["parent_sha256"],
        calibration=facts["calibration"],
        tools=facts["tools"],
        notes=tuple(facts.get("notes", ())),
        checkpoint_sha256=facts.get("checkpoint_sha256"),
        fidelity=Fidelity.from_dict(facts["fidelity"]) if facts.get("fidelity") else None,
    )
    _check_types(made)
    return made


def _check_types(made: Artifact) -> None:
    """Raise TypeError where a value is of another type than its field, which a sidecar edited by hand can hold."""
    texts: list[object] = [
        made.format,
        made.sha256,
        made.recipe,
        *made.classes,
        *made.notes,
        *made.tools,
        *made.tools.values(),
    ]
    texts += [one for one in (made.parent_sha256, made.checkpoint_sha256) if one is not None]
    texts += [word for spec in (*made.inputs, *made.outputs) for word in (spec.name, spec.dtype)]
    if wrong := [text for text in texts if type(text) is not str]:
        raise TypeError(f"{wrong[0]!r:.60} is no text")
    if type(made.preprocess.label_offset) is not int:
        raise TypeError(f"{made.preprocess.label_offset!r:.60} is no label offset")
    axes: list[object] = [axis for spec in (*made.inputs, *made.outputs) for axis in spec.shape]
    if wrong := [axis for axis in axes if type(axis) is not int or axis not in range(-1, 2**31)]:
        raise TypeError(f"{wrong[0]!r:.60} is no size of an axis")
    if not isinstance(made.calibration, dict | None):
        raise TypeError(f"{made.calibration!r:.60} is no calibration set")


def _spec(facts: dict[str, Any]) -> TensorSpec:
    # Sidecars of before scales were recorded say enough of floats alone.
    facts = ({"scale": None, "zero_point": None} if "float" in facts["dtype"] else {}) | facts
    return TensorSpec(facts["name"], tuple(facts["shape"]), facts["dtype"], facts["scale"], facts["zero_point"])

"""Artifact: a model file and the sidecar that describes it."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any, Literal, cast, get_args

from targets.errors import ArtifactError
from targets.host.text import argument, instead_of, json_text, made_later
from targets.preprocess import Preprocess

Format = Literal["onnx", "ort", "tflite"]
TAKEN = (*get_args(Format), "pt", "pth", "ckpt", "bin", "pt2", "ts", "safetensors", "npz", "json", "toml")
"""Suffixes that stand for something already, so that no plug-in's format may have them."""
PreprocessSource = Literal["sidecar", "file metadata", "options", "searched", "press"]
"""Where the preprocess of a file comes from: its sidecar, itself, the user, a search on training images, or the press
that has just made it."""
SCHEMA = "glyphpress/artifact/1"
Facts = dict[str, Any]
"""The content of a sidecar, as JSON types."""
ONNX_METADATA_KEY = "glyphpress"

MOST_BYTES = 2**31
"""Largest size of all tensors of a model: the limit of a FlatBuffer, far above any model that reads characters."""

DTYPES = ("float16", "float32", "float64", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))
"""Types of inputs and outputs that a sidecar may name."""


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and dtype of an input or output; a dynamic axis is -1.

    An integer q stands for `scale * (q - zero_point)`, as in ONNX's QuantizeLinear and LiteRT's specification; both
    are None for floats, and for integers that are not quantized.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True)
class Fidelity:
    """A comparison of a quantized file with its float file on a few images.

    base: the float file's name. images: how many images both files read. sqnr_db: ratio of signal to quantization noise
    of all logits in decibels, None where none differs. agreement: share of the images with the same answer. collapsed:
    whether either is below what working quantization of that many bits reaches. worst: the layers that add the most
    error, and their SQNR; only of a file that collapsed.
    """

    base: str
    images: int
    sqnr_db: float | None
    agreement: float
    collapsed: bool = False
    worst: dict[str, float | None] = field(default_factory=dict)

    @property
    def sqnr_text(self) -> str:
        """Return `42.3 dB`, or `exact`."""
        return "exact" if self.sqnr_db is None else f"{self.sqnr_db:.1f} dB"

    @property
    def agreement_text(self) -> str:
        """Return `99.6 %`; only full agreement is given as 100 %."""
        return "100 %" if self.agreement == 1 else f"{min(self.agreement * 100, 99.9):.1f} %"

    def __str__(self) -> str:
        """Return `SQNR of the logits 42.3 dB, 99.6 % equal answers on 256 images`."""
        return f"SQNR of the logits {self.sqnr_text}, {self.agreement_text} equal answers on {self.images} images"

    def warning(self, file: str) -> str | None:
        """Return what is wrong with `file`, its worst layers and what to do, on one line; None where nothing is."""
        if not self.collapsed:
            return None
        noise = [f"{layer} ({'exact' if db is None else f'{db:.1f} dB'})" for layer, db in self.worst.items()]
        worst = f"; most error comes from {', '.join(noise)}" if noise else ""
        return (
            f"{file} does not answer like {self.base}: {self}{worst}; see "
            f"`glyphpress explain {argument(self.base)} {argument(file)} --data ...`, keep such layers float "
            "(--keep LAYER, --fallback 8), or take another scheme"
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Fidelity:
        """Rebuild from `dataclasses.asdict`; raises ValueError, KeyError or TypeError on anything else."""
        read = cls(**values)
        if not isinstance(read.worst, dict):
            raise TypeError("fidelity: worst must map layers to numbers")
        numbers = [number for number in (read.sqnr_db, *read.worst.values()) if number is not None]
        if not (isinstance(read.base, str) and isinstance(read.collapsed, bool) and 0 <= read.agreement <= 1):
            raise ValueError("fidelity needs a name, a share from 0 to 1 and true or false")
        if read.images < 1 or not all(isfinite(number) for number in numbers):
            raise ValueError("fidelity needs images and finite numbers")
        return read


@dataclass(frozen=True)
class Artifact:
    """A file that can be shipped, and everything needed to judge it.

    path: the file; its sidecar is `<path>.json`. sha256: digest of the file's bytes. classes: the characters of the
    logits, in order. recipe: how it was made (`float` for the export itself). parent_sha256: the checkpoint or artifact
    it was made from. checkpoint_sha256: the checkpoint at the start of that chain (None where it is not known).
    calibration: digest, size and seed of the calibration set (None where none was used). tools: versions of the
    packages that made it. fidelity: comparison of a quantized file with its float file (None for a float file, and
    where there were no images to compare on). preprocess_source: of this reading of the file; not in the sidecar.
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

    def facts(self) -> Facts:
        """Return the content of the sidecar as JSON types: everything but the path."""
        facts = asdict(replace(self, path=Path()))
        del facts["path"], facts["preprocess_source"]
        about = {"schema": SCHEMA, "file": self.path.name, "bytes": self.size}
        return about | facts | {"duties": self.duties()}

    def duties(self) -> dict[str, list[str]]:
        """Return as texts what the `caller` does with a picture, in this order, and what the `file` does itself.

        answer: what the caller does with the output. All of it stands in the sidecar beside the preprocess and the
        tensors, whose fields alone do not say who applies them.
        """
        columns = self.preprocess.label_offset + len(self.classes)
        source = next((spec for spec in self.inputs if len(spec.shape) > 1), None)
        sink = next((spec for spec in self.outputs if spec.shape and spec.shape[-1] in (columns, -1)), None)
        duties = self.preprocess.duties()
        return {
            "caller": [*duties["caller"], *(_giving(source, self.preprocess) if source else [])],
            "file": duties["file"],
            "answer": _answering(sink, self.preprocess) if sink else [],
        }


def _giving(source: TensorSpec, preprocess: Preprocess) -> list[str]:
    """Return how values become the numbers of an input, and its name and shape."""
    shape = f"{source.dtype} {list(source.shape)}".replace("-1", "N")
    if preprocess.dtype == source.dtype == "uint8":
        return [f"give the pixels, 0 to 255, as {shape} to {source.name}"]
    steps = []
    if "float" not in source.dtype and source.scale is not None:
        steps = [f"divide by {source.scale:.9g}", "round to the nearest whole number, halves to even"]
        steps += [f"add {source.zero_point}"] if source.zero_point else []
        steps += [f"clip to the range of {source.dtype}"]
    return [*steps, f"give them as {shape} to {source.name}"]


def _answering(sink: TensorSpec, preprocess: Preprocess) -> list[str]:
    """Return how an output becomes a class and its probability."""
    steps = []
    if sink.scale is not None:
        steps += [f"subtract {sink.zero_point}"] if sink.zero_point else []
        steps += [f"multiply by {sink.scale:.9g}"]
    steps += [f"leave out the first {preprocess.label_offset} columns"] if preprocess.label_offset else []
    return [
        f"read {sink.name}, one row for each image",
        *steps,
        "the largest column is the answer: its number, from 0, in `classes`",
        "apply softmax for confidences, unless all values lie in 0 to 1 and each row sums to 1",
    ]


def file_sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def utf8(path: Path) -> bool:
    """Return whether a name is UTF-8, as the C++ libraries that open models require."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


LFS_POINTER = b"version https://git-lfs"
"""Begins a file that Git LFS has not fetched."""
NOT_FETCHED = "is a pointer of Git LFS, not the file; fetch it with `git lfs pull`"


def file_format(path: Path) -> Format:
    """Return the format by the suffix; raises ArtifactError where the file is missing, empty or of another kind."""
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file; give an .onnx, .ort or .tflite file")
    if not utf8(path):
        raise ArtifactError(f"{path}: the name is not UTF-8, so the runtimes cannot open it; rename the file")
    kind = path.suffix.lower().removeprefix(".")
    if not _known(kind):
        if advice := instead_of(path):
            raise ArtifactError(f"{path} {advice}")
        raise ArtifactError(f"{path}: neither .onnx, .ort nor .tflite; `glyphpress export` makes one of a checkpoint")
    if path.stat().st_size == 0:
        raise ArtifactError(f"{path}: is empty; export the model again")
    with path.open("rb") as stream:
        if stream.read(len(LFS_POINTER)) == LFS_POINTER:
            raise ArtifactError(f"{path} {NOT_FETCHED}")
    return cast(Format, kind)


def _known(kind: str) -> bool:
    """Return whether there is such a format, of ours or of a plug-in; raises PluginFailed for one that is refused."""
    if kind in get_args(Format):
        return True
    from glyphpress.registry import find

    try:
        find("format", kind, TAKEN)
    except KeyError:
        return False
    return True


def sidecar_of(path: Path) -> Path:
    """Return the path of a model file's sidecar."""
    return path.with_name(path.name + ".json")


def refuse_later(source: Path, facts: Any) -> None:
    """Raise ArtifactError for facts of a later version of the schema; source: where they stand."""
    if problem := made_later(facts, SCHEMA):
        raise ArtifactError(f"{source} {problem}")


def from_facts(path: Path, facts: Facts) -> Artifact:
    """Rebuild from `Artifact.facts` without reading the file.

    Raises ValueError, KeyError, TypeError or ArtifactError where the facts are wrong.
    """
    if facts["schema"] != SCHEMA:
        raise ValueError(f"schema {facts['schema']}, this version reads {SCHEMA}")
    artifact = Artifact(
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
    _check_types(artifact)
    return artifact


def _check_types(artifact: Artifact) -> None:
    """Raise TypeError where a value has another type than its field, as in a sidecar that was edited by hand."""
    texts: list[object] = [
        artifact.format,
        artifact.sha256,
        artifact.recipe,
        *artifact.classes,
        *artifact.notes,
        *artifact.tools,
        *artifact.tools.values(),
    ]
    texts += [digest for digest in (artifact.parent_sha256, artifact.checkpoint_sha256) if digest is not None]
    texts += [text for spec in (*artifact.inputs, *artifact.outputs) for text in (spec.name, spec.dtype)]
    if wrong := [text for text in texts if type(text) is not str]:
        raise TypeError(f"{wrong[0]!r:.60} is not a text")
    if type(artifact.preprocess.label_offset) is not int:
        raise TypeError(f"{artifact.preprocess.label_offset!r:.60} is not a label offset")
    specs = (*artifact.inputs, *artifact.outputs)
    if wrong := [spec.dtype for spec in specs if spec.dtype not in DTYPES]:
        raise TypeError(f"{wrong[0]!r:.60} is not a number type")
    for spec in specs:
        scaled = isinstance(spec.scale, (int, float)) and spec.scale > 0 and type(spec.zero_point) is int
        if not scaled and (spec.scale, spec.zero_point) != (None, None):
            raise TypeError(f"{spec.scale!r:.60} and {spec.zero_point!r:.60} are not a scale and zero point")
    axes: list[object] = [axis for spec in specs for axis in spec.shape]
    if wrong := [axis for axis in axes if type(axis) is not int or axis not in range(-1, 2**31)]:
        raise TypeError(f"{wrong[0]!r:.60} is not the size of an axis")
    if not isinstance(artifact.calibration, dict | None):
        raise TypeError(f"{artifact.calibration!r:.60} is not a calibration set")


def _spec(facts: Facts) -> TensorSpec:
    # Old sidecars have no scales; for floats none are needed.
    scaling = facts if "float" not in facts["dtype"] else {"scale": None, "zero_point": None, **facts}
    return TensorSpec(facts["name"], tuple(facts["shape"]), facts["dtype"], scaling["scale"], scaling["zero_point"])

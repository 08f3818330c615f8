"""Reads and writes the description of an artifact: its JSON sidecar, or the metadata inside the file."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, replace
from pathlib import Path

from targets.artifact import (
    ONNX_METADATA_KEY,
    TAKEN,
    Artifact,
    Facts,
    Format,
    TensorSpec,
    file_format,
    file_sha256,
    from_facts,
    refuse_later,
    sidecar_of,
)
from targets.errors import ArtifactError, plain_reason, translated
from targets.host.text import json_value
from targets.preprocess import Preprocess


def save_sidecar(artifact: Artifact) -> Path:
    """Write `<path>.json`, whole or not at all, over an earlier one, and return its path."""
    with tempfile.TemporaryDirectory(prefix=".glyphpress-", dir=artifact.path.parent) as folder:
        part = Path(folder) / artifact.sidecar.name
        part.write_text(artifact.description(), encoding="utf-8", errors="backslashreplace")
        part.replace(artifact.sidecar)
    return artifact.sidecar


def explained(path: Path) -> bool:
    """Return whether a sidecar or metadata in the file describes it; raises ArtifactError."""
    kind = file_format(path)
    return sidecar_of(path).is_file() or bool(_embedded_text(path, kind))


def load_artifact(path: Path) -> Artifact:
    """Read an artifact from its file and sidecar, or from its own metadata where an .onnx or .ort file has no sidecar.

    Raises ArtifactError when the file is missing or unreadable, nothing describes it, the sidecar belongs to other
    bytes, or an .onnx has weights in another file or asks for more memory than any model that reads characters.
    """
    kind = file_format(path)
    if kind == "onnx":
        from targets.onnxruntime.onnx_file import refuse_huge, refuse_outside_weights

        refuse_outside_weights(path)
        refuse_huge(path)
    sidecar = sidecar_of(path)
    if not explained(path):
        raise ArtifactError(f"{sidecar}: no sidecar; make one with `glyphpress export` or `glyphpress press`")
    source = sidecar if sidecar.is_file() else path
    sha256, facts = file_sha256(path), None
    try:
        with translated(ArtifactError):
            facts = json_value(sidecar.read_bytes()) if source == sidecar else _embedded_facts(path, sha256)
            artifact = _described(path, facts)
    except ArtifactError as error:
        refuse_later(source, facts)
        raise ArtifactError(f"{source}: not glyphpress metadata ({error}); export the model again") from error
    if (sha256, kind) != (artifact.sha256, artifact.format):
        raise ArtifactError(
            f"{path}: not the bytes that {sidecar.name} describes; export or quantize it again, or describe a file of "
            "your own anew: `glyphpress adopt --force`"
        )
    return artifact if source == sidecar else replace(artifact, preprocess_source="file metadata")


def _described(path: Path, facts: Facts) -> Artifact:
    try:
        return from_facts(path, facts)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(plain_reason(error)) from error


def adopt(path: Path, *, preprocess: Preprocess, classes: tuple[str, ...]) -> Artifact:
    """Return the artifact of a user's .onnx, .ort or .tflite file that has no sidecar; nothing is written.

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
    if kind not in TAKEN:
        from glyphpress.registry import find, load

        specs: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]
        specs = load(find("format", kind, TAKEN))().tensors(path)
        return specs
    if kind == "tflite":
        from targets.litert.cpu import described
    elif kind == "ort":
        from targets.onnxruntime.cpu import described
    else:
        from targets.onnxruntime.onnx_file import described
    return described(path)


def outputs_note(artifact: Artifact) -> str | None:
    """Return a note where the file's first output is not the one that is judged; None where it is.

    Programs usually take the first output, and a sidecar need not name all of them.
    """
    from targets.host.runtime_session import codecs_of, input_and_output

    _, outputs = describe(artifact.path)
    judged = input_and_output(artifact, *codecs_of(artifact))[1].spec.name
    if outputs[0].name == judged or judged not in [spec.name for spec in outputs]:
        return None
    return (
        f"{artifact.path.name} has {len(outputs)} outputs, and {judged} is judged; a program that takes the first one "
        f"reads {outputs[0].name} instead"
    )


def _embedded_text(path: Path, kind: Format) -> str:
    """Return the text under ONNX_METADATA_KEY in a file, empty if it has none; only .onnx and .ort can have one."""
    if kind not in ("onnx", "ort"):
        return ""
    if kind == "ort":
        from targets.onnxruntime.cpu import metadata
    else:
        from targets.onnxruntime.onnx_file import metadata
    return metadata(path).get(ONNX_METADATA_KEY, "")


def _embedded_facts(path: Path, sha256: str) -> Facts:
    """Return the facts of a sidecar from the file itself: its metadata, its graph and its bytes."""
    kind = file_format(path)
    stored: Facts = json_value(_embedded_text(path, kind))
    inputs, outputs = (tuple(map(asdict, specs)) for specs in describe(path))
    return stored | {"format": kind, "sha256": sha256, "inputs": inputs, "outputs": outputs}

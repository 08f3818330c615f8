"""Recognise what kind of model file a file is by its bytes; its name must agree."""

from __future__ import annotations

import difflib
import zipfile
from pathlib import Path

from calibration.idx import announced_bytes, unpacks_to_too_much
from targets.artifact import utf8
from targets.errors import translated
from targets.host.result_files import instead_of
from toolchain.checkpoint.pickled import NUMPY, TO_ONNX
from toolchain.core.errors import CheckpointError
from toolchain.formats import catalog

KIND_NAMES: dict[str, str] = {
    "state": "torch file",
    "torchscript": "TorchScript",
    "exported": "torch.export program",
    "safetensors": "safetensors",
    **{model_format.name: model_format.title for model_format in catalog.readable()},
}
_SUFFIXES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((".pt", ".pth", ".ckpt", ".bin"), ("state", "torchscript")),
    ".pt2": ("exported",),
    ".safetensors": ("safetensors",),
    **{model_format.suffix: (model_format.name,) for model_format in catalog.readable()},
}
"""The kinds that a file with this suffix may be; with any other suffix it may be any kind."""
_FORMS = "a .pt, .pth, .ckpt, .pt2, .safetensors or .onnx file"
_COMPRESSED = f"is compressed, as gzip and joblib do it; unpack it and give {_FORMS}"
_FOREIGN = {
    b"\x89HDF": f"is HDF5, as Keras writes it; {TO_ONNX}",
    b"\x93NUMPY": NUMPY,
    **dict.fromkeys(
        (b"\x1f\x8b", b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda", b"BZh", b"\xfd7zXZ"), _COMPRESSED
    ),
}
"""Files of other programs by their first bytes, and what to do with them."""


def present_file(path: Path) -> Path:
    """Return `path` if it is a file and not empty; otherwise raise CheckpointError saying what it is."""
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            raise CheckpointError(f"{path} is a TensorFlow model; {TO_ONNX}")
        raise CheckpointError(f"{path} is a folder, not a checkpoint; name {_FORMS} in it")
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file{_nearby(path)}; give {_FORMS} or one of our model names")
    if not utf8(path):
        raise CheckpointError(f"{path}: the name is not UTF-8, so not every library can open it; rename the file")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty (0 bytes); save or copy the checkpoint again")
    return path


def kind_of(path: Path) -> str:
    """Return what kind of model file this is, of KIND_NAMES.

    Raises CheckpointError when there is no such file, when it is a folder, empty or of no known kind, and when its
    suffix stands for another kind: such a file is not opened.
    """
    kind = _kind(path)
    allowed = _SUFFIXES.get(path.suffix, (kind,))
    if kind not in allowed:
        suffix = next(suffix for suffix, kinds in _SUFFIXES.items() if kind in kinds)
        raise CheckpointError(
            f"{path} is no {KIND_NAMES[allowed[0]]} but a {KIND_NAMES[kind]}; if that is meant, name it "
            f"{path.with_suffix(suffix).name}"
        )
    return kind


def _kind(path: Path) -> str:
    with present_file(path).open("rb") as stream:
        head = stream.read(64)
    if problem := instead_of(path):
        raise CheckpointError(f"{path} {problem}")
    if head.startswith(b"PK"):
        return _kind_of_zip(path)
    for model_format in catalog.formats():
        if model_format.magic and head[4:8] == model_format.magic:
            if model_format.opaque:
                raise CheckpointError(f"{path} {model_format.opaque}")
            return model_format.name
    if 2 <= int.from_bytes(head[:8], "little") < 2**32 and head[8:9] == b"{":
        return "safetensors"
    if head.startswith(b"\x80"):
        return "state"
    for model_format in catalog.readable():
        if model_format.recognises(path, head):
            return model_format.name
    if foreign := next((reason for magic, reason in _FOREIGN.items() if head.startswith(magic)), None):
        raise CheckpointError(f"{path} {foreign}")
    start_text = "text" if _is_text(head) else f"bytes {head[:4].hex(' ')}"
    raise CheckpointError(f"{path} is no model file (it begins with {start_text}); give {_FORMS}")


def _kind_of_zip(path: Path) -> str:
    with (
        translated(lambda reason: CheckpointError(f"{path} is cut off or damaged ({reason}); save or copy it again")),
        zipfile.ZipFile(path) as archive,
    ):
        members = [name.split("/", 1)[-1] for name in archive.namelist()]
        announced, packed = announced_bytes(archive.infolist()), path.stat().st_size
    if unpacks_to_too_much(announced, packed):
        raise CheckpointError(
            f"{path} has {packed:,} bytes that unpack to {announced:,}; torch saves no such file, so it is not opened"
        )
    if any(name.startswith("models/") for name in members) or "archive_format" in members:
        return "exported"
    if any(name.startswith("code/") for name in members):
        return "torchscript"
    if "data.pkl" in members:
        return "state"
    if "model.weights.h5" in members:
        raise CheckpointError(f"{path} is a Keras model; {TO_ONNX}")
    if members and all(name.endswith(".npy") for name in members):
        raise CheckpointError(f"{path} {NUMPY}")
    raise CheckpointError(f"{path} is a zip archive without a torch model in it; give {_FORMS}")


def _is_text(head: bytes) -> bool:
    try:
        return head[:60].decode("utf-8", errors="strict").isprintable() or b"\n" in head
    except UnicodeDecodeError:
        return False


def _nearby(path: Path) -> str:
    try:
        names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    except OSError:
        names = []
    similar_names = difflib.get_close_matches(path.name, names, n=2)
    return f" (there is {', '.join(similar_names)})" if similar_names else ""

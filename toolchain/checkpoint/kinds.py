"""Recognise by its bytes what a file holds, and refuse what is no model file or holds no float model of torch."""

from __future__ import annotations

import difflib
import pickletools
import sys
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from calibration.idx import announced_bytes, unpacks_to_too_much
from targets.artifact import LFS_POINTER, NOT_FETCHED, utf8
from targets.errors import translated
from targets.host.text import instead_of
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
_TO_ONNX = "convert it with tf2onnx and give the .onnx"
"""What to do with a Keras or TensorFlow model."""
_NUMPY = (
    "holds numpy arrays, not torch tensors; save them again: "
    "torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, 'model.pt')"
)
_COMPRESSED = f"is compressed, as gzip and joblib do it; unpack it and give {_FORMS}"
_FOREIGN = {
    b"\x89HDF": f"is HDF5, as Keras writes it; {_TO_ONNX}",
    b"\x93NUMPY": _NUMPY,
    **dict.fromkeys(
        (b"\x1f\x8b", b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda", b"BZh", b"\xfd7zXZ"), _COMPRESSED
    ),
}
"""Files of other programs by their first bytes, and what to do with them."""
_PICKLES = 4
"""In torch's format before 1.6 the model is the fourth pickle of the file, after magic number, version and system."""
_MAGIC = 0x1950A86A20F9469CFC6C
_UNINFORMATIVE = (*sys.stdlib_module_names, "__builtin__", "copy_reg", "numpy", "joblib", "torch", "__main__")
_OTHER_LEARNERS = ("sklearn", "xgboost", "lightgbm", "catboost")
_QUANTIZED = (
    "torch._utils._rebuild_qtensor",
    "torch.ao.nn.quantized.",
    "torch.ao.nn.intrinsic.quantized.",
    "torch.nn.quantized.",
    "__torch__.torch.classes.quantized.",
    "torchao.dtypes.",
    "torchao.quantization.",
)


def kind_of(path: Path) -> str:
    """Return what kind of model file this is: of KIND_NAMES, or the format of a plug-in.

    Raises CheckpointError when there is no such file, when it is a folder, empty or of no known kind, and when its
    suffix stands for another kind: such a file is not opened.
    """
    if (model_format := catalog.of(path)) and model_format.name not in catalog.FORMATS:
        _refuse_absent(path)
        return model_format.name
    kind = _kind(path)
    allowed = _SUFFIXES.get(path.suffix, (kind,))
    if kind not in allowed:
        suffix = next(suffix for suffix, kinds in _SUFFIXES.items() if kind in kinds)
        raise CheckpointError(
            f"{path} is no {KIND_NAMES[allowed[0]]} but a {KIND_NAMES[kind]}; if that is meant, name it "
            f"{path.with_suffix(suffix).name}"
        )
    return kind


def kind_name(kind: str) -> str:
    """Return what people call a kind of file that `kind_of` returned."""
    return KIND_NAMES.get(kind) or catalog.get(kind).title


def _refuse_absent(path: Path) -> None:
    """Raise CheckpointError unless `path` is a file that is not empty and has a name in UTF-8."""
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            raise CheckpointError(f"{path} is a TensorFlow model; {_TO_ONNX}")
        raise CheckpointError(f"{path} is a folder, not a checkpoint; name {_FORMS} in it")
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file{_nearby(path)}; give {_FORMS} or one of our model names")
    if not utf8(path):
        raise CheckpointError(f"{path}: the name is not UTF-8, so not every library can open it; rename the file")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty (0 bytes); save or copy the checkpoint again")


def _kind(path: Path) -> str:
    _refuse_absent(path)
    with path.open("rb") as stream:
        head = stream.read(64)
    if problem := instead_of(path):
        raise CheckpointError(f"{path} {problem}")
    if head.startswith(LFS_POINTER):
        raise CheckpointError(f"{path} {NOT_FETCHED}")
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
        raise CheckpointError(f"{path} is a Keras model; {_TO_ONNX}")
    if members and all(name.endswith(".npy") for name in members):
        raise CheckpointError(f"{path} {_NUMPY}")
    raise CheckpointError(f"{path} is a zip archive without a torch model in it; give {_FORMS}")


def _is_text(head: bytes) -> bool:
    try:
        return head[:60].decode("utf-8", errors="strict").isprintable() or b"\n" in head
    except UnicodeDecodeError:
        return False


def _nearby(path: Path) -> str:
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        names = []
    similar_names = difflib.get_close_matches(path.name, names, n=2)
    return f" (there is {', '.join(similar_names)})" if similar_names else ""


def refuse_foreign_pickle(path: Path) -> None:
    """Raise CheckpointError if a pickle holds no torch model or was not written by torch.save."""
    names, by_torch = _pickled_names(path)
    roots = {name.partition(".")[0]: name for name in reversed(names)}
    if "torch" not in roots and (reason := _foreign_contents(roots)):
        raise CheckpointError(f"{path} {reason}")
    if not by_torch:
        advice = "load it as you saved it, then torch.save(model.state_dict(), 'model.pt')"
        problem = (
            f"was pickled without torch.save; {advice}" if "torch" in roots else "is a pickle without a model in it"
        )
        raise CheckpointError(f"{path} {problem}")


def refuse_quantized_pickle(path: Path) -> None:
    """Raise CheckpointError if a pickle holds quantized weights or layers, which cannot be pressed again."""
    culprit = next((name for name in _pickled_names(path)[0] if name.startswith(_QUANTIZED)), None)
    if culprit:
        raise CheckpointError(f"{path} is quantized already ({culprit}); give the float model that it was made from")


def _foreign_contents(roots: dict[str, str]) -> str:
    """Return what a pickle without torch objects holds, for an error message; "" where that is not known.

    roots: top-level packages, each with the first name that the pickle takes from it.
    """
    if name := next((roots[root] for root in _OTHER_LEARNERS if root in roots), None):
        return (
            f"holds a {name}, and no pickle of a learner is opened; convert it to .onnx (skl2onnx, onnxmltools), or "
            "train one on the same images: glyphpress train --data SPEC -o model.pt"
        )
    if name := roots.get("keras") or roots.get("tensorflow"):
        return f"holds a {name}; {_TO_ONNX}"
    others = [name for root, name in roots.items() if root not in _UNINFORMATIVE]
    if others:
        return f"holds a {others[0]}, not a torch model; export the model as .onnx with its own library and give that"
    return _NUMPY if "numpy" in roots else ""


def _pickled_names(path: Path) -> tuple[list[str], bool]:
    """Return the dotted names of all classes and functions in a file's pickles, and whether torch wrote them.

    The pickles' opcodes are read, and nothing of them is run.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            member = next((name for name in archive.namelist() if name.split("/", 1)[-1] == "data.pkl"), None)
            if member is None:
                return [], True
            with archive.open(member) as stream:
                return _names(stream)[0], True
    names, by_torch = [], False
    with path.open("rb") as stream:
        for _ in range(_PICKLES):
            new_names, number = _names(stream)
            names += new_names
            by_torch = by_torch or number == _MAGIC
            if not by_torch:
                break
    return names, by_torch


def _names(stream: IO[bytes]) -> tuple[list[str], int | None]:
    """Return the names in one pickle up to the first invalid opcode, and the last long integer before that."""
    names: list[str] = []
    number = None
    # joblib writes arrays between opcodes, and damaged files raise anything; the names up to there are enough.
    with suppress(Exception):
        for item in _globals_and_integers(stream):
            if isinstance(item, int):
                number = item
            else:
                names.append(item)
    return names, number


def _globals_and_integers(stream: IO[bytes]) -> Iterator[str | int]:
    """Yield `module.name` of each global in a pickle, and each long integer."""
    strings: list[str] = []
    memo: dict[int, str] = {}
    last_string = ""
    value: Any
    for opcode, value, _ in pickletools.genops(stream):
        match opcode.name:
            case "GLOBAL":
                yield str(value).replace(" ", ".")
            case "STACK_GLOBAL":
                yield ".".join(strings[-2:])
            case "LONG1":
                yield int(value)
            case "MEMOIZE":
                memo[len(memo)] = last_string
            case "BINPUT" | "LONG_BINPUT":
                memo[int(value)] = last_string
            case "BINGET" | "LONG_BINGET":
                strings.append(memo.get(int(value), ""))
        last_string = str(value) if "UNICODE" in opcode.name else ""
        strings += [last_string] if last_string else []

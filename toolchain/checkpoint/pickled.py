"""Find which classes a pickle refers to by reading its opcodes, without running any of it."""

from __future__ import annotations

import pickletools
import sys
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from toolchain.core.errors import CheckpointError

TO_ONNX = "convert it with tf2onnx and give the .onnx"
"""What to do with a Keras or TensorFlow model."""
NUMPY = (
    "holds numpy arrays, not torch tensors; save them again: "
    "torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, 'model.pt')"
)
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


def refuse_foreign(path: Path) -> None:
    """Raise CheckpointError if a pickle holds no torch model or was not written by torch.save: neither can load."""
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


def refuse_quantized(path: Path) -> None:
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
            f"holds a {name}, and only networks made with torch can be pressed; train one on the same images: "
            "glyphpress train --data SPEC -o model.pt"
        )
    if name := roots.get("keras") or roots.get("tensorflow"):
        return f"holds a {name}; {TO_ONNX}"
    others = [name for root, name in roots.items() if root not in _UNINFORMATIVE]
    if others:
        return f"holds a {others[0]}, not a torch model; export the model as .onnx with its own library and give that"
    return NUMPY if "numpy" in roots else ""


def _pickled_names(path: Path) -> tuple[list[str], bool]:
    """Return the dotted names of all classes and functions in a file's pickles, and whether torch wrote them."""
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

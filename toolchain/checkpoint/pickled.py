"""Whose objects a pickle holds, told from its opcodes: none of it runs."""

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
"""The way out of a Keras or TensorFlow model."""
NUMPY = (
    "holds numpy arrays, not torch's tensors; save them again: "
    "torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, 'model.pt')"
)
_PICKLES = 4
"""Torch's format before 1.6 has the model in the fourth pickle of the file, after its number, version and system."""
_MAGIC = 0x1950A86A20F9469CFC6C
_EVERYWHERE = (*sys.stdlib_module_names, "__builtin__", "copy_reg", "numpy", "joblib", "torch", "__main__")
_NO_NETWORKS = ("sklearn", "xgboost", "lightgbm", "catboost")
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
    """Raise CheckpointError where a pickle holds no torch model, or where torch did not write it: neither loads."""
    names, by_torch = _contents(path)
    roots = {name.partition(".")[0]: name for name in reversed(names)}
    if "torch" not in roots and (reason := _stranger(roots)):
        raise CheckpointError(f"{path} {reason}")
    if not by_torch:
        how = "load it as you saved it, then torch.save(model.state_dict(), 'model.pt')"
        what = f"was pickled without torch.save; {how}" if "torch" in roots else "is a pickle without a model in it"
        raise CheckpointError(f"{path} {what}")


def refuse_quantized(path: Path) -> None:
    """Raise CheckpointError where a pickle holds quantized weights or layers, which cannot be pressed again."""
    culprit = next((name for name in _contents(path)[0] if name.startswith(_QUANTIZED)), None)
    if culprit:
        raise CheckpointError(f"{path} is quantized already ({culprit}); give the float model that it was made from")


def _stranger(roots: dict[str, str]) -> str:
    """Return what a pickle without torch's objects holds. roots: packages, and the first class of each."""
    if name := next((roots[root] for root in _NO_NETWORKS if root in roots), None):
        return (
            f"holds a {name}, and only networks made with torch can be pressed; train one on the same images: "
            "glyphpress train --data SPEC -o model.pt"
        )
    if name := roots.get("keras") or roots.get("tensorflow"):
        return f"holds a {name}; {TO_ONNX}"
    others = [name for root, name in roots.items() if root not in _EVERYWHERE]
    if others:
        return f"holds a {others[0]}, not a torch model; export the model as .onnx with its own library and give that"
    return NUMPY if "numpy" in roots else ""


def _contents(path: Path) -> tuple[list[str], bool]:
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
            more, number = _names(stream)
            names += more
            by_torch = by_torch or number == _MAGIC
            if not by_torch:
                break
    return names, by_torch


def _names(stream: IO[bytes]) -> tuple[list[str], int | None]:
    """Return the names in one pickle up to what is no opcode, and the last long number before that."""
    names: list[str] = []
    number = None
    # Arrays of joblib stand between opcodes, and damage leads anywhere; what came before says enough.
    with suppress(Exception):
        for item in _named(stream):
            if isinstance(item, int):
                number = item
            else:
                names.append(item)
    return names, number


def _named(stream: IO[bytes]) -> Iterator[str | int]:
    """Yield `module.name` of each global in a pickle, and each long number."""
    strings: list[str] = []
    memo: dict[int, str] = {}
    before = ""
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
                memo[len(memo)] = before
            case "BINPUT" | "LONG_BINPUT":
                memo[int(value)] = before
            case "BINGET" | "LONG_BINGET":
                strings.append(memo.get(int(value), ""))
        before = str(value) if "UNICODE" in opcode.name else ""
        strings += [before] if before else []

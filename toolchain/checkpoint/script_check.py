"""Check TorchScript from untrusted sources before any of it runs, which loading alone can cause.

`torch.jit.load` calls `__setstate__` and evaluates default arguments and class constants. So the code is first searched
as text; once it is loaded, the graphs that the compiler made of it are checked as well.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toolchain.checkpoint.operators import computes, known
from toolchain.core.errors import CheckpointError

_GETATTR = re.compile(r"""getattr\([^"'\\]*, "[^"'\\]*"\)""")
_OPERATOR = re.compile(r"(?<![\w.])torch\s*\.\s*([A-Za-z_]\w*)")
_NAMESPACE = re.compile(r"(?<![\w.])ops\b(?!\.(?:aten|prim)\.\w)")
_QUALIFIED = re.compile(r"(?<![\w.])ops\.(aten|prim)\.(\w+)")
_FORBIDDEN = re.compile(r"\b(?:__setstate__|save|from_file|torch\s*\.\s*classes)\b")
_QUANTIZED = re.compile(r"(?<![\w.])ops\.quantized\.|\.torch\.classes\.quantized\.")


def refuse_harmful_code(path: Path) -> None:
    """Raise CheckpointError if the text of the file's code could do more than compute. The file is not loaded here."""
    parts = _parts(path)
    if "model.json" in parts:
        raise CheckpointError(f"{path} is TorchScript from before torch 1.2; save it with a newer torch")
    for code in (content.decode("ascii", "replace") for name, content in parts.items() if name.endswith(".py")):
        if _QUANTIZED.search(code):
            raise CheckpointError(f"{path} is quantized already; give the float model that it was made from")
        if harm := _harm(code):
            raise _refusal(path, harm)


def refuse_harmful_graphs(unit: Any, path: Path) -> None:
    """Raise CheckpointError if a function of a compilation unit has an operator that may do more than compute."""
    for function in unit.get_functions():
        for node in _nodes(function.graph):
            if not computes(node.kind()):
                raise _refusal(path, node.kind())


def refuse_false_lengths(path: Path) -> None:
    """Raise CheckpointError if a pickle in the file states lengths beyond its end: torch would allocate that much."""
    for name, content in _parts(path).items():
        if name.endswith((".pkl", "_pkl")):
            try:
                for _ in pickletools.genops(content):
                    pass
            except (ValueError, UnicodeDecodeError) as error:
                raise CheckpointError(f"{path} is damaged or cut off ({name}); save or copy it again") from error


def _parts(path: Path) -> dict[str, bytes]:
    """Return the code and the pickles in a file, as torch's own reader sees them."""
    import torch

    try:
        reader = torch._C.PyTorchFileReader(str(path))
        names = [name for name in reader.get_all_records() if name.endswith((".py", ".pkl", "_pkl", "model.json"))]
        return {name: reader.get_record(name) for name in names}
    except (RuntimeError, ValueError, IndexError) as error:
        raise CheckpointError(f"{path} is no readable TorchScript; save it again") from error


def _harm(code: str) -> str | None:
    """Return the first part of TorchScript's code that could do more than compute; None where all is harmless."""
    if match := _FORBIDDEN.search(code):
        return match[0]
    remaining, previous = code, ""
    # getattr calls can be nested; each pass replaces the innermost.
    while remaining != previous:
        previous, remaining = remaining, _GETATTR.sub("_", remaining)
    if "getattr" in remaining:
        return "getattr with a computed name"
    if foreign_operator := _NAMESPACE.search(code):
        return code[foreign_operator.start() :].split("(", maxsplit=1)[0].strip()[:60]
    for name in (*(f"aten::{base}" for base in _OPERATOR.findall(code)), *map("::".join, _QUALIFIED.findall(code))):
        if known(name) and not computes(name):
            return name
    return None


def _nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)
        for name in node.attributeNames():
            if node.kindOf(name) == "g":
                yield from _nodes(node.g(name))


def _refusal(path: Path, harm: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is TorchScript that can do more than compute ({harm}), such as write files; "
        f"save it without that, or give --trust-pickle if you made this file"
    )

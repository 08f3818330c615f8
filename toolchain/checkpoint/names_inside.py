"""Names inside files, for completion: weights and layers of checkpoints, and classes of Python files.

Nothing is loaded and no code of a file runs: pickles are read with stand-ins for whatever they would make. A file that
cannot be read raises whatever its reader raises.
"""

from __future__ import annotations

import ast
import io
import json
import pickle
import re
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from itertools import count, islice
from pathlib import Path
from typing import Any

from toolchain.checkpoint.state import preferred

Shapes = dict[str, tuple[int, ...]]
"""Weight -> its shape; empty where the file does not say it."""

_MOST_BYTES = 16 << 20
"""Of the description of a file's weights, and of a Python file."""
_MOST_PARTS = 20_000
_MAX_DEPTH = 12
_PICKLES = 4
"""In torch's format before 1.6 the model is the fourth pickle of the file."""
_WEIGHTS_CONFIG = "data/weights/model_weights_config.json"
_WEIGHT = re.compile(r"(.+)\.weight(_orig|_v)?")


def layer_names(path: Path, key: str | None = None, *, matrices: bool = False) -> list[str]:
    """Return the layers with weights in a model file, in its order.

    key: of `--weights`. matrices: leave out those whose weights have one axis, as norms have; a graph has none of them.
    """
    from toolchain.formats import catalog

    if file_format := catalog.of(path):
        return [layer.name for layer in file_format.graph(path).layers]
    groups = stored_weights(path)
    chosen = key if key in groups else preferred(groups, None, path.name)[0]
    named = ((_WEIGHT.fullmatch(name), shape) for name, shape in groups[chosen].items())
    layers = [match[1] for match, shape in named if match and not (matrices and len(shape) == 1)]
    return [layer.removeprefix("module.") for layer in dict.fromkeys(layers)]


def weight_keys(path: Path) -> list[str]:
    """Return the keys that `--weights` takes; none where a file has one set of weights, not under a key."""
    return [key for key in stored_weights(path) if key]


def stored_weights(path: Path) -> dict[str, Shapes]:
    """Return the weights of a checkpoint by the key under which they are; an empty key for those under none."""
    if path.suffix == ".safetensors":
        return _by_copies({"": _of_safetensors(path)})
    if not zipfile.is_zipfile(path):
        with path.open("rb") as stream:
            return _by_copies(_groups(_unpickled(stream.read(_MOST_BYTES), pickles=_PICKLES)))
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(f"/{_WEIGHTS_CONFIG}"):
                config = json.loads(_part(archive, name))["config"]
                return {"": {weight: _sizes(entry) for weight, entry in config.items()}}
            if name.endswith("/data.pkl"):
                return _by_copies(_groups(_unpickled(_part(archive, name))))
    return {}


def _part(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as part:
        return part.read(_MOST_BYTES)


def _sizes(entry: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the shape of a weight of a torch.export program."""
    return tuple(size["as_int"] for size in (entry.get("tensor_meta") or {}).get("sizes", ()))


def _of_safetensors(path: Path) -> Shapes:
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(min(length, _MOST_BYTES)))
    return {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}


def _by_copies(groups: dict[str, Shapes]) -> dict[str, Shapes]:
    """Add a group for each prefix of which there are several with the same names, as raw and averaged weights are."""
    added: dict[str, Shapes] = {}
    for key, weights in groups.items():
        parts: dict[str, Shapes] = {}
        for name, shape in weights.items():
            prefix, _, rest = name.partition(".")
            parts.setdefault(prefix, {})[rest] = shape
        for prefix, part in parts.items():
            if "" not in part and sum(part == other for other in parts.values()) > 1:
                added[f"{key}.{prefix}".lstrip(".")] = part
    return groups | added


class _Tensor(tuple[int, ...]):
    """The shape of a tensor in a pickle."""

    __slots__ = ()


class _StandIn:
    """What a pickle would make of a class or function that is not called."""

    def __init__(self, *_arguments: object, **_settings: object) -> None:
        self.state: object = None

    def __call__(self, *_arguments: object, **_settings: object) -> _StandIn:
        return _StandIn()

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        """Keep nothing."""

    def append(self, value: object) -> None:
        """Keep nothing."""

    def extend(self, values: object) -> None:
        """Keep nothing."""


def _tensor(_storage: object, _offset: object, size: object, *_rest: object) -> _Tensor:
    return _Tensor(size if isinstance(size, tuple) else ())


def _first(value: object, *_rest: object) -> object:
    return value


def _of_type(make: Any, _type: object, arguments: Any, _state: object) -> object:
    return make(*arguments)


_MADE = {
    **dict.fromkeys(("_rebuild_tensor", "_rebuild_tensor_v2"), _tensor),
    **dict.fromkeys(("_rebuild_parameter", "_rebuild_parameter_with_state"), _first),
    "_rebuild_from_type_v2": _of_type,
    "OrderedDict": OrderedDict,
    "Size": _first,
}
"""What stands in for a global of these names; all others are `_StandIn`."""


# The unpickler in Python, since that in C takes memory for the numbers that a file gives its parts.
class _Unpickler(pickle._Unpickler):
    """Reads a pickle without importing anything."""

    def find_class(self, _module: str, name: str) -> Any:
        """Return what stands in for a global."""
        return _MADE.get(name, _StandIn)

    def persistent_load(self, _pid: object) -> None:
        """Read no numbers."""


def _unpickled(content: bytes, *, pickles: int = 1) -> object:
    """Return the last of so many pickles."""
    stream, payload = io.BytesIO(content), None
    for _ in range(pickles):
        payload = _Unpickler(stream).load()
    return payload


def _groups(payload: object) -> dict[str, Shapes]:
    """Return the tensors of each dict in a file's content, those of an object by the object's own names."""
    groups: dict[str, Shapes] = {}
    for key, name, shape in islice(_tensors(payload, count()), _MOST_PARTS):
        groups.setdefault(key, {})[name.replace("_orig_mod.", "")] = shape
    return groups


def _tensors(
    payload: object, visits: count[int], key: str = "", depth: int = 0
) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Yield key, name and shape of each tensor. An optimizer's state has numbers as keys, and is left out.

    visits: counts the parts, since a damaged file may hold one part many times, also inside itself.
    """
    if depth > _MAX_DEPTH or next(visits) > _MOST_PARTS:
        return
    if isinstance(payload, _StandIn):
        for name, shape in _of_module(payload, visits):
            yield key, name, shape
    elif isinstance(payload, dict) and all(isinstance(inner, str) for inner in payload):
        for name, value in payload.items():
            if isinstance(value, _Tensor):
                yield key, name, value
            elif isinstance(value, (dict, _StandIn)):
                yield from _tensors(value, visits, f"{key}.{name}".lstrip("."), depth + 1)


def _of_module(module: _StandIn, visits: count[int], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, _Tensor]]:
    """Yield name and shape of each tensor in a pickled module, or one of TorchScript."""
    state = module.state
    if not isinstance(state, dict) or depth > _MAX_DEPTH or next(visits) > _MOST_PARTS:
        return
    parts = {**state, **_dict(state, "_parameters"), **_dict(state, "_modules")}
    for name, part in parts.items():
        if isinstance(part, _Tensor):
            yield f"{prefix}{name}", part
        elif isinstance(part, _StandIn):
            yield from _of_module(part, visits, f"{prefix}{name}.", depth + 1)


def _dict(state: Mapping[Any, Any], key: str) -> Mapping[Any, Any]:
    return value if isinstance(value := state.get(key), dict) else {}


def python_file(location: str) -> Path | None:
    """Return the file of `FILE.py` or of a module's dotted name, found as `--model` finds it but not imported."""
    if location.endswith(".py"):
        return Path(location)
    inner = location.replace(".", "/")
    candidates = (Path(root) / name for root in ("", *sys.path) for name in (f"{inner}.py", f"{inner}/__init__.py"))
    return next((path for path in candidates if path.is_file()), None)


def classes_in(path: Path) -> list[str]:
    """Return the names that `--model` can take of a Python file: its modules, else its classes, else its functions."""
    with path.open("rb") as stream:
        body = ast.parse(stream.read(_MOST_BYTES)).body
    classes = {node.name: node for node in body if isinstance(node, ast.ClassDef)}

    def is_module(name: str, depth: int = 0) -> bool:
        bases = [ast.unparse(base).rpartition(".")[2] for base in classes[name].bases]
        return any(
            base.endswith("Module") or (base in classes and depth < _MAX_DEPTH and is_module(base, depth + 1))
            for base in bases
        )

    functions = [node.name for node in body if isinstance(node, ast.FunctionDef)]
    for names in (list(filter(is_module, classes)), list(classes), functions):
        if public := [name for name in names if not name.startswith("_")]:
            return public
    return []

"""Files that run something when they are loaded, made from harmless ones: each writes the file that it is given."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.lazily import blocks, torch

Change = Callable[[dict[str, bytes], Path], None]


class Bomb:
    """Unpickled, it runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def program(path: Path) -> Path:
    """Save an ordinary torch.export program."""
    batch = torch.export.Dim("batch", min=1, max=4096)
    blank = torch.zeros(2, 1, 28, 28)
    torch.export.save(torch.export.export(blocks.Dense().eval(), (blank,), dynamic_shapes=({0: batch},)), path)
    return path


def script(path: Path) -> Path:
    """Save ordinary TorchScript."""
    torch.jit.save(torch.jit.script(blocks.Dense().eval()), str(path))
    return path


def changed(path: Path, change: Change, mark: Path, made: Path) -> Path:
    """Write the archive `path` to `made` with some of its parts changed; `mark` is what they write."""
    with zipfile.ZipFile(path) as source:
        root = source.namelist()[0].split("/", 1)[0]
        parts = {name.split("/", 1)[1]: source.read(name) for name in source.namelist()}
    change(parts, mark)
    with zipfile.ZipFile(made, "w") as target:
        for name, content in parts.items():
            target.writestr(f"{root}/{name}", content)
    return made


def _bomb(mark: Path, *, torch_file: bool = True) -> bytes:
    stream = io.BytesIO()
    torch.save(Bomb(f"touch {mark}"), stream)
    return stream.getvalue() if torch_file else pickle.dumps(Bomb(f"touch {mark}"))


def _edit(parts: dict[str, bytes], name: str, change: Callable[[Any], None]) -> None:
    content = json.loads(parts[name])
    change(content)
    parts[name] = json.dumps(content).encode()


def _everywhere(value: Any, key: str, new: Any) -> None:
    """Give every `key` within JSON a new value."""
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _everywhere(item, key, new)
    if isinstance(value, dict) and key in value:
        value[key] = new


def _pickled_weights(parts: dict[str, bytes], mark: Path) -> None:
    parts["data/weights/weight_0"] = _bomb(mark)
    _edit(parts, "data/weights/model_weights_config.json", lambda config: _everywhere(config, "use_pickle", True))


def _size(text: str) -> Change:
    def change(parts: dict[str, bytes], mark: Path) -> None:
        spelled = "+".join(f"chr({ord(letter)})" for letter in f"open({str(mark)!r},'w')")
        code = text.format(mark=mark, spelled=spelled)
        _edit(parts, "models/model.json", lambda model: _everywhere(model, "expr_str", code))

    return change


def _object(kind: str) -> Change:
    def change(parts: dict[str, bytes], mark: Path) -> None:
        payload = {"path_name": f"{kind}_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
        _edit(parts, "data/constants/model_constants_config.json", lambda config: config["config"].update(x=payload))
        parts[f"data/constants/{kind}_0"] = _bomb(mark, torch_file=kind == "tensor")

    return change


def _part(name: str) -> Change:
    def change(parts: dict[str, bytes], mark: Path) -> None:
        parts[name] = _bomb(mark)

    return change


def guards(parts: dict[str, bytes], mark: Path) -> None:
    """Give a program a condition on its input that runs a command."""
    guard = f"__import__('os').system('touch {mark}') == 0"
    _edit(parts, "models/model.json", lambda model: model.update(guards_code=[guard]))


def _operator(target: str) -> Change:
    def change(parts: dict[str, bytes], mark: Path) -> None:
        def edit(model: dict[str, Any]) -> None:
            graph = model["graph_module"]["graph"]
            call = {"name": "", "arg": {"as_string": f"touch {mark}"}, "kind": 1}
            graph["nodes"].insert(
                0, graph["nodes"][0] | {"target": target, "inputs": [call], "outputs": [], "name": "a"}
            )

        _edit(parts, "models/model.json", edit)

    return change


def _name(parts: dict[str, bytes], mark: Path) -> None:
    evil = f"image=__import__('os').system('touch {mark}')"
    parts["models/model.json"] = parts["models/model.json"].replace(b'"image"', json.dumps(evil).encode())


def _tree(parts: dict[str, bytes], mark: Path) -> None:
    (mark.parent / "planted.py").write_text(f"open({str(mark)!r}, 'w').close()\nint = int\n")
    context = {"default_factory_module": "planted", "default_factory_name": "int", "dict_context": []}
    tree = [1, {"type": "collections.defaultdict", "context": context, "children_spec": []}]
    _edit(parts, "models/model.json", lambda model: _everywhere(model, "out_spec", json.dumps(tree)))


PROGRAMS: dict[str, Change] = {
    "pickled-weights": _pickled_weights,
    "pickled-constant": _object("tensor"),
    "opaque-object": _object("opaque_obj"),
    "custom-object": _object("custom_obj"),
    "older-weights": _part("data/weights/model.pt"),
    "older-constants": _part("data/constants/model.pt"),
    "sample-inputs": _part("data/sample_inputs/model.pt"),
    "library": _part("data/aotinductor/model/model.so"),
    "size": _size("__import__('os').system('touch {mark}')"),
    "size-of-allowed-characters": _size("eval({spelled})"),
    "operator": _operator("torch.os.system"),
    "operator-that-writes": _operator("torch.ops.aten.save.default"),
    "name": _name,
    "tree": _tree,
}
"""Ways in which a .pt2 file runs something once it is loaded or run."""


def _code(old: str, new: str) -> Change:
    def change(parts: dict[str, bytes], mark: Path) -> None:
        name = next(name for name in parts if name.endswith("blocks.py"))
        code = parts[name].decode()
        assert old in code, code
        parts[name] = code.replace(old, new.replace("MARK", str(mark))).encode()

    return change


_DEFAULT = "image: Tensor) ->"
_FIRST = "    flatten = "
SCRIPTS: dict[str, Change] = {
    "forward": _code(_FIRST, '    torch.save(image, "MARK")\n' + _FIRST),
    "default-of-an-argument": _code(_DEFAULT, 'image: Tensor, x: Tensor=torch.from_file("MARK", True, 9)) ->'),
    "spelled-name": _code(_FIRST, '    getattr(torch, "\\163ave")(image, "MARK")\n' + _FIRST),
    "name-in-two-parts": _code(_FIRST, '    getattr(torch, "sa" "ve")(image, "MARK")\n' + _FIRST),
    "own-state": _code("  def forward", "  def __setstate__(self, x: Tensor) -> NoneType:\n    pass\n  def forward"),
    "other-operators": _code(_FIRST, '    ops.profiler._record_function_enter("MARK")\n' + _FIRST),
    "print": _code(_FIRST, '    print("MARK")\n' + _FIRST),
}
"""Ways in which TorchScript writes a file, or does another thing than compute, when it is loaded or run."""

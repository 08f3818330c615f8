"""Names inside files are those that torch finds there, and reading them runs nothing."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.lazy import Lazy, nn, torch
from toolchain.checkpoint import names_inside

safetensors = Lazy("safetensors.torch")


def net() -> Any:
    """A model with a layer in a layer."""
    inner = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
    layers = {"features": inner, "pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "head": nn.Linear(4, 2)}
    return nn.Sequential(OrderedDict(layers))


def state(prefix: str = "") -> dict[str, Any]:
    return {prefix + name: value for name, value in net().state_dict().items()}


LAYERS = ["features.0", "features.1", "head"]
FORMS: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "a.pt": (lambda path: torch.save(state(), path), []),
    "old.pt": (lambda path: torch.save(state(), path, _use_new_zipfile_serialization=False), []),
    "compiled.pt": (lambda path: torch.save(state("_orig_mod."), path), []),
    "parallel.pt": (lambda path: torch.save(state("module."), path), []),
    "model.pt": (lambda path: torch.save(net(), path), []),
    "training.pt": (
        lambda path: torch.save(
            {
                "model_ema": state(),
                "model": net().state_dict(),
                "optimizer": torch.optim.Adam(net().parameters()).state_dict(),
                "epoch": 3,
            },
            path,
        ),
        ["model_ema", "model"],
    ),
    "a.safetensors": (lambda path: safetensors.save_file(state(), path), []),
    "twice.safetensors": (lambda path: safetensors.save_file(state("ema.") | state("model."), path), ["ema", "model"]),
    "a.ts": (lambda path: torch.jit.script(net()).save(str(path)), []),
    "a.pt2": (
        lambda path: torch.export.save(torch.export.export(net().eval(), (torch.zeros(2, 1, 28, 28),)), path),
        [],
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_layers_and_keys_are_found_in_every_form(name: str, tmp_path: Path) -> None:
    write, keys = FORMS[name]
    path = tmp_path / name
    write(path)
    assert sorted(names_inside.weight_keys(path)) == sorted(keys)
    key = keys[0] if path.suffix == ".safetensors" and keys else None
    assert sorted(names_inside.layer_names(path, key)) == LAYERS
    assert sorted(names_inside.layer_names(path, key, matrices=True)) == ["features.0", "head"]


class Harmful:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_no_code_of_a_pickle_runs(tmp_path: Path) -> None:
    torch.save({"state_dict": state(), "extra": Harmful(tmp_path / "ran")}, tmp_path / "a.pt")
    assert names_inside.weight_keys(tmp_path / "a.pt") == ["state_dict"]
    assert not (tmp_path / "ran").exists()


def test_a_pickle_that_names_a_huge_place_or_nests_itself_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    # Four pickles, as torch wrote them before 1.6; the last one stores an empty dict at place 4,294,967,295.
    path.write_bytes(pickle.dumps(1, 2) * 3 + b"\x80\x02}r\xff\xff\xff\xff.")
    assert names_inside.weight_keys(path) == []
    nested: dict[str, Any] = {"w.weight": 1}
    for _ in range(30):
        nested = {str(number): nested for number in range(50)}
    path.write_bytes(pickle.dumps(1, 2) * 3 + pickle.dumps(nested, 2))
    assert names_inside.weight_keys(path) == []


def test_a_class_is_a_module_by_its_bases_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text("class _B(torch.nn.Module): ...\nclass A(_B): ...\nclass Data(Dataset): ...\ndef train(): ...\n")
    assert names_inside.classes_in(path) == ["A"]
    path.write_text("class Loop(Loop): ...\nclass Data: ...\n")
    assert names_inside.classes_in(path) == ["Loop", "Data"]
    path.write_text("def make(): ...\ndef _own(): ...\n")
    assert names_inside.classes_in(path) == ["make"]


def test_a_module_is_found_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "package").mkdir()
    for name in ("net.py", "__init__.py"):
        (tmp_path / "package" / name).write_text("raise SystemExit")
    assert names_inside.python_file("package.net") == Path("package/net.py")
    assert names_inside.python_file("package") == Path("package/__init__.py")
    assert names_inside.python_file("nothing.here") is None

"""Model files that cannot be taken: one line that says why and what to do, and the exit code of their family."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.lazy import torch

NET = """
{imports}
from torch import nn

class Net(nn.Sequential):
    def __init__(self, classes=10):
        super().__init__(nn.Flatten(), nn.Linear(784, classes))

class Needs(nn.Sequential):
    def __init__(self, num_classes, *, dropout=0.1):
        super().__init__(nn.Flatten(), nn.Linear(784, num_classes))

class Wide(nn.Sequential):
    def __init__(self, width, num_classes):
        super().__init__(nn.Flatten(), nn.Linear(784, width), nn.Linear(width, num_classes))
"""
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 12345\n"


def quantized(path: Path, *, whole: bool) -> None:
    """Save a model of eight bits."""
    layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.ao.quantization.quantize_dynamic(layers, {torch.nn.Linear})
    torch.save(model if whole else model.state_dict(), path)


def weights(path: Path, columns: int = 10) -> None:
    """Save the weights of `Net`."""
    torch.save(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, columns)).state_dict(), path)


def module(path: Path) -> None:
    """Save a whole model."""
    torch.save(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10)), path)


BAD: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "an import that is missing": (
        weights,
        "missing.py:Net",
        "missing.py cannot be imported (ModuleNotFoundError: No module named 'no_such_package'); install the package "
        "that has no_such_package, such as pip install no_such_package, or take the import out",
    ),
    "arguments": (
        weights,
        "net.py:Needs",
        "Needs(num_classes, *, dropout=0.1) cannot be built (TypeError: Needs.__init__() missing 1 required positional "
        "argument: 'num_classes'); give its arguments, such as --model \"{folder}/net.py:Needs(num_classes=10)\"",
    ),
    "arguments that cannot be known": (
        weights,
        "net.py:Wide",
        '--model "{folder}/net.py:Wide(width=..., num_classes=10)"',
    ),
    "outputs of another split": (
        lambda path: weights(path, 47),
        "net.py:Net(47)",
        "it answers 47 columns, but there are 10 classes; 47 is the width of balanced or bymerge; give the --data it "
        "was trained on, or choose its classes with --classes",
    ),
    "outputs of another number": (lambda path: weights(path, 47), "net.py:Net", '--model "FILE.py:Net(classes=47)"'),
    "nothing": (lambda path: path.touch(), "net.py:Net", "is empty (0 bytes); save or copy the checkpoint again"),
    "a pointer of Git LFS": (
        lambda path: path.write_bytes(POINTER),
        "net.py:Net",
        "is a pointer of Git LFS, not the file; fetch it with `git lfs pull`",
    ),
    "quantized weights": (
        lambda path: quantized(path, whole=False),
        "net.py:Net",
        "is quantized already (torch._utils._rebuild_qtensor); give the float model that it was made from",
    ),
    "a quantized module": (
        lambda path: quantized(path, whole=True),
        "",
        "is quantized already (torch.ao.nn.quantized.dynamic.modules.linear.Linear); give the float model",
    ),
    "a whole module": (
        module,
        "",
        "holds whole pickled Python objects (torch.nn.modules.container.Sequential), and unpickling runs whatever code "
        "they bring; save model.state_dict() instead, or give --trust-pickle if you made this file",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_model_file_ends_in_one_line(what: str, tmp_path: Path, glyphpress) -> None:
    make, model, said = BAD[what]
    (tmp_path / "net.py").write_text(NET.format(imports=""))
    (tmp_path / "missing.py").write_text(NET.format(imports="import no_such_package.layers"))
    path, out = tmp_path / "theirs.pt", tmp_path / "out"
    make(path)
    words = [path, *(["--model", f"{tmp_path}/{model}"] if model else []), "--data", "builtin:digits"]
    for command in ("export", "prune", "press"):
        target = (
            ("--out", out)
            if command == "press"
            else ("-o", out.with_suffix({"export": ".onnx", "prune": ".pt2"}[command]))
        )
        ran = glyphpress(command, *words, *target)
        assert (ran.code, ran.out) == (3, ""), ran.err
        assert ran.err.startswith("glyphpress: ")
        assert said.format(folder=tmp_path) in ran.err
        assert ran.err.count("\n") == 1
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("suffix", [".pt", ".onnx", ".safetensors", ".pt2", ".tflite"])
def test_a_pointer_is_told_whatever_it_points_to(suffix: str, tmp_path: Path, glyphpress) -> None:
    path = tmp_path / f"theirs{suffix}"
    path.write_bytes(POINTER)
    commands = [("inspect", path)]
    if suffix in (".onnx", ".tflite"):
        commands.append(("evaluate", path, "--data", "builtin:digits"))
    for words in commands:
        ran = glyphpress(*words)
        assert (ran.code, ran.out) == (3, ""), ran.err
        assert "is a pointer of Git LFS, not the file; fetch it with `git lfs pull`" in ran.err
        assert ran.err.count("\n") == 1


def test_the_line_that_is_given_can_be_typed(tmp_path: Path, glyphpress) -> None:
    (tmp_path / "net.py").write_text(NET.format(imports=""))
    weights(tmp_path / "theirs.pt")
    words = ("inspect", tmp_path / "theirs.pt", "--model")
    refused = glyphpress(*words, f"{tmp_path}/net.py:Needs").err
    typed = shlex.split(refused.partition("such as ")[2])
    assert glyphpress(*words[:-1], *typed).code == 0


def test_a_file_of_a_package_is_imported_with_its_neighbours(tmp_path: Path, glyphpress) -> None:
    for number, folder in enumerate(("one", "two")):
        place = tmp_path / folder / "models"
        place.mkdir(parents=True)
        (place / "net.py").write_text(
            NET.format(imports="from .layers import NUMBER") + "\n        self.number = NUMBER"
        )
        (place / "layers.py").write_text(f"NUMBER = {number}\n")
        weights(tmp_path / "theirs.pt")
        ran = glyphpress("inspect", tmp_path / "theirs.pt", "--model", f"{place}/net.py:Net")
        assert ran.code == 0, ran.err

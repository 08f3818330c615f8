"""Completion: every parameter that has names offers them, and files are offered by their kind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import rich_click as click
from click.shell_completion import ShellComplete

from tests.fixtures.command_parameters import parameters
from toolchain.cli.main import glyphpress as program
from toolchain.cli.values import Finite, Numbers, Quantity, Whole

ROOT = Path(__file__).resolve().parents[3]
FREE = {
    "--url": "any address",
    "--name": "a name that the user chooses",
    "--commit": "a name that the user chooses; without it git is asked",
    "--bytes": "a size or a share, which are numbers with a unit",
}
"""Texts of which no list holds all, and why."""
CHECKED = """
import sys
from tests.fixtures.command_parameters import parameters
for path, param, context in parameters():
    for begun in ("", "a", "emnist:", "ssh://", "net.py:", "x[", "1,"):
        param.shell_complete(context, begun)
heavy = "torch", "onnx", "onnxruntime", "litert_torch", "ai_edge_litert", "litert_quantizer", "sklearn", "scipy"
print([name for name in heavy if name in sys.modules])
"""


def is_completed(param: click.Parameter) -> bool:
    """Whether a parameter offers something of its own, or its type does."""
    completes = type(param.type).shell_complete is not click.ParamType.shell_complete
    return param._custom_shell_complete is not None or completes


def test_every_parameter_is_completed_or_is_a_number_or_a_free_text() -> None:
    numbers = Quantity | Whole | Finite | Numbers
    rest = [
        (path, param.opts)
        for path, param, _ in parameters()
        if not is_completed(param) and not isinstance(param.type, numbers) and param.opts[-1] not in FREE
    ]
    assert rest == []
    assert {param.opts[-1] for _, param, _ in parameters() if not is_completed(param)} >= FREE.keys()


def test_completing_imports_no_runtime_and_says_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHECKED]
    found = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=found, capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("[]\n", "", 0)


def offers(words: list[str], begun: str = "") -> list[str]:
    completer = ShellComplete(program, {}, "glyphpress", "_GLYPHPRESS_COMPLETE")
    return [item.value for item in completer.get_completions(words, begun)]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["evaluate"], ["a.onnx", "b.tflite"]),
        (["compare", "a.onnx"], ["a.onnx", "b.tflite", "c.npz"]),
        (["gate", "--baseline"], ["a.onnx", "b.tflite", "c.npz"]),
        (["gate", "--from"], ["r.json"]),
        (["quantize", "a.onnx", "--ranges"], ["r.json"]),
        (["train", "--config"], ["t.toml"]),
        (["read"], ["p.png"]),
    ],
    ids=" ".join,
)
def test_files_are_offered_by_their_kind(
    words: list[str], offered: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.onnx", "b.tflite", "c.npz", "r.json", "t.toml", "p.png"):
        (tmp_path / name).touch()
    assert offers(words) == offered


def test_schemas_are_offered() -> None:
    assert "artifact" in offers(["schema"], "arti")

"""What a command imports before it works, in a process of its own: the time it takes to start is mostly that.

`python -m bench.startup` measures it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from glyphpress.registry import KINDS
from tests.fixtures.plugin_packages import package
from tests.fixtures.small_readers import pair
from toolchain.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
RUNTIMES = {"torch", "onnx", "onnxruntime", "litert_torch", "ai_edge_litert", "tensorflow", "openvino", "sklearn"}
LARGE = RUNTIMES | {"numpy", "scipy", "pydantic", "PIL", "requests"}
SCREEN = {"rich", "rich_click.rich_help_rendering"}
"""What only a terminal needs: boxes, colours and bars."""
GATE_EXTRAS = {"PIL", "requests", "xml", "scipy.stats", "scipy.optimize", "scipy.linalg"}
PROGRAM = """
import json, os, sys
from toolchain.cli.main import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
json.dump(sorted(sys.modules), open(os.environ["IMPORTED"], "w"))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the saved evaluations float.npz and int8.npz."""
    folder = tmp_path_factory.mktemp("answers")
    base, candidate = pair(30, 20, 18_800)
    base.save(folder / "float.npz")
    candidate.save(folder / "int8.npz")
    return folder


def imported(folder: Path, *words: str, **settings: str) -> set[str]:
    """Return the names of the modules that a run of the program imported."""
    list_file = folder / "imported.json"
    environ = os.environ | {"PYTHONPATH": str(ROOT), "IMPORTED": str(list_file)} | settings
    command = [sys.executable, "-c", PROGRAM, *words]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(list_file.read_text()))


def commands(modules: set[str]) -> set[str]:
    """Return those modules that hold commands."""
    return modules & {place.split(":")[0] for place, _ in COMMANDS.values()}


def test_the_list_of_commands_imports_no_command(folder: Path) -> None:
    modules = imported(folder, "--help")
    assert commands(modules) == set()
    slow = {"importlib.metadata", "importlib.resources", "tempfile", "logging", "platformdirs", "difflib", "secrets"}
    assert modules & (LARGE | SCREEN | slow) == set()


def test_completion_of_a_command_imports_no_command(folder: Path) -> None:
    settings = {"_GLYPHPRESS_COMPLETE": "bash_complete", "COMP_WORDS": "glyphpress pr", "COMP_CWORD": "1"}
    modules = imported(folder, **settings)
    assert commands(modules) == set()
    assert modules & (LARGE | SCREEN) == set()


@pytest.mark.parametrize(
    ("words", "unused"),
    [
        (["version"], LARGE | SCREEN),
        (["targets", "--help"], LARGE | SCREEN),
        (["gate", "--help"], LARGE | SCREEN),
        (["recipe", "--help"], LARGE | SCREEN),
        (["press", "--help"], (LARGE | SCREEN) - {"numpy"}),
        (["recipe", "list"], (LARGE | SCREEN) - {"pydantic"}),
        (["compare", "float.npz", "int8.npz"], RUNTIMES | GATE_EXTRAS | {"scipy"}),
        (["gate", "--baseline", "float.npz", "--candidate", "int8.npz"], RUNTIMES | GATE_EXTRAS),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_a_command_imports_what_it_uses(folder: Path, words: list[str], unused: set[str]) -> None:
    assert imported(folder, *words) & unused == set()


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["gate", "--help"],
        ["press", "--help"],
        ["targets", "show", "ort-cpu"],
        ["gate", "--baseline", "float.npz", "--candidate", "int8.npz"],
    ],
    ids=" ".join,
)
def test_no_plug_in_is_imported_that_is_not_asked_for(folder: Path, words: list[str]) -> None:
    site = folder / "site"
    if not site.exists():
        groups = {f"{kind}s": {"foreign": "foreign_module:IT"} for kind in KINDS}
        package(site, "foreign", groups, foreign_module="raise AssertionError")
    assert "foreign_module" not in imported(folder, *words, PYTHONPATH=os.pathsep.join([str(site), str(ROOT)]))

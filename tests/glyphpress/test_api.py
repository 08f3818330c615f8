"""The public API: its names, that they are typed, and that nothing heavy comes with it."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import glyphpress

NAMES = {
    "Comparison", "Dataset", "Evaluation", "GateRequest", "GlyphpressError", "Judgement", "Policy", "PressRequest",
    "ProfileRequest", "Recipe", "Report", "RunContext", "__version__", "choose_policy", "compare", "evaluate",
    "find_recipe", "gate", "load_data", "press", "profile", "read_policy",
}  # fmt: skip
"""A name that is taken out of here is a new major version."""


def test_the_names_are_those_promised() -> None:
    assert set(glyphpress.__all__) == set(dir(glyphpress)) == NAMES
    for name in NAMES:
        assert getattr(glyphpress, name).__doc__
    assert glyphpress.__version__ == version("glyphpress")
    with pytest.raises(AttributeError, match="no attribute 'pres'"):
        _ = glyphpress.pres


def test_type_checkers_see_the_names_where_they_come_from() -> None:
    tree = ast.parse(Path(glyphpress.__file__).read_text(encoding="utf-8"))
    typed = {
        alias.asname: (node.module, alias.name)
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(typed) == NAMES - {"__version__"}
    for name, (module, own_name) in typed.items():
        assert getattr(glyphpress, str(name)) is getattr(sys.modules[module or ""], own_name)
    assert (Path(glyphpress.__file__).parent / "py.typed").is_file()


def test_nothing_heavy_comes_with_the_import() -> None:
    code = "import sys, glyphpress; print([name for name in ('numpy', 'torch', 'rich', 'onnx') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"

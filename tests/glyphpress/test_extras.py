"""What a message tells to install brings the package that is missing."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from glyphpress.extras import EXTRAS, pip_line

PYPROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))


def packages(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=;]", requirement)[0] for requirement in requirements}


@pytest.mark.parametrize("module", EXTRAS)
def test_the_extra_of_a_module_names_its_package(module: str) -> None:
    extra = EXTRAS[module]
    assert pip_line(f"{module}.part") == f"pip install 'glyphpress[{extra}]'"
    assert module.replace("_", "-") in packages(PYPROJECT["project"]["optional-dependencies"][extra])


def test_a_package_of_the_core_is_named_alone() -> None:
    assert pip_line("onnxruntime") == "pip install onnxruntime"
    assert "onnxruntime" in packages(PYPROJECT["project"]["dependencies"])

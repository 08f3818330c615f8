"""A package that is missing is found below the errors that hide it."""

from __future__ import annotations

import pytest

from toolchain.core import packages
from toolchain.core.errors import StageError


@pytest.fixture(autouse=True)
def nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda _name: None)


def test_a_hidden_import_error_is_found() -> None:
    error = StageError("the file is damaged")
    error.__cause__ = ModuleNotFoundError("no such module", name="ai_edge_litert.schema_py_generated")
    assert "'glyphpress[litert]'" in str(packages.missing(error))


def test_a_chain_of_causes_that_runs_in_a_circle_ends() -> None:
    first, second = StageError("first"), StageError("second")
    first.__cause__, second.__cause__ = second, first
    assert packages.missing(first) is None

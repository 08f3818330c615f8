"""Forty damaged files of each kind: every one is read, or refused in one line with an exit code that says so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.readers import READERS

ROOT = Path(__file__).resolve().parents[2]
INPUTS = 40


@pytest.fixture(scope="module")
def ended(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """How the inputs of each reader that is asked for ended; in a process of its own, which a library may crash."""
    asked = [item.callspec.params["name"] for item in request.session.items if item.path == request.path]
    folder = tmp_path_factory.mktemp("fuzz")
    words = [*asked, "--count", INPUTS, "--keep", folder / "failures", "--base", folder / "base", "--json"]
    command = [sys.executable, "-m", "tests.fuzz", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=850, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [line["reader"] for line in lines] == asked, done.stderr[-2000:]
    return {line["reader"]: line for line in lines}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", READERS, ids=[f"row35-{name}" for name in READERS])
def test_damaged_files_are_read_or_refused_in_one_line(name: str, ended: dict[str, Any]) -> None:
    assert ended[name]["inputs"] == INPUTS
    assert ended[name]["failures"] == []

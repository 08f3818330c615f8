"""What keeps the versions of a deployed model on a board, killed and with a disk in the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from targets.ssh import deployment


def there(home: Path, *words: str | Path, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run the program as a board does."""
    program = text or deployment.VERSIONS.read_text()
    environ = {"HOME": str(home), "PATH": os.environ["PATH"]}
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, words)], env=environ, capture_output=True, text=True, check=False
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home to which two models were pushed; the first one runs."""
    (tmp_path / "library").mkdir()
    (tmp_path / "library/module.py").write_text("answer = 42\n")
    for version in ("one", "two"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "run").write_text("#!/bin/sh\n")
    assert not there(tmp_path, "settle", "reader", "one", tmp_path / "one", tmp_path / "library").returncode
    assert not there(tmp_path, "switch", "reader", "one", "0", "").returncode
    return tmp_path


def test_a_version_is_told_with_the_file_that_it_holds(home: Path) -> None:
    (home / "two" / "cnn.int8.onnx").write_bytes(b"model")
    for name in ("cnn.int8.onnx.json", "zeros.json"):
        (home / "two" / name).write_text("{}")
    assert not there(home, "settle", "reader", "two", home / "two").returncode
    assert json.loads(there(home, "switch", "reader", "two", "0", "").stdout)["file"] == "cnn.int8.onnx"
    assert json.loads(there(home, "switch", "reader", "previous", "0", "").stdout)["file"] == ""


def test_packages_stay_when_the_cache_is_emptied(home: Path) -> None:
    (home / "library/module.py").unlink()
    folder = home / ".local/share/glyphpress/reader/one"
    assert (folder / "lib/module.py").read_text() == "answer = 42\n"
    assert os.access(folder / "run", os.X_OK)
    assert not (home / "one").exists(), "what was pushed is moved, not doubled"


@pytest.mark.parametrize("moment", ["part.rename(folder)", 'link(folder, "current", version)'])
def test_a_kill_leaves_the_version_that_runs(home: Path, moment: str) -> None:
    text = deployment.VERSIONS.read_text()
    assert text.count(moment) == 1
    killed = text.replace(moment, f"os.kill(os.getpid(), {int(signal.SIGKILL)})")
    words = (["settle", "reader", "two", home / "two", home / "library"], ["switch", "reader", "two", "0", ""])
    assert -signal.SIGKILL in [there(home, *each, text=killed).returncode for each in words]
    state = json.loads(there(home, "state", "reader").stdout)
    assert state["current"] == "one"
    assert [there(home, *each).returncode for each in words] == [0, 0], "the same commands again go on"
    state = json.loads(there(home, "state", "reader").stdout)
    assert (state["current"], state["previous"]) == ("two", "one")
    left = {path.name for path in Path(state["folder"]).iterdir()}
    assert left == {"one", "two", "current", "previous", ".lock"}


def test_a_disk_that_cannot_be_written_is_one_line(home: Path) -> None:
    (home / ".local/share/glyphpress/other").write_text("a file where a folder has to be")
    done = there(home, "settle", "other", "two", home / "two")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "File exists" in done.stderr


def test_files_that_cannot_be_copied_are_one_short_line(home: Path) -> None:
    for name in ("lost", "gone", "away"):
        (home / "two" / name).symlink_to(home / "nowhere")
    done = there(home, "settle", "reader", "two", home / "two")
    assert done.returncode == 1
    assert done.stderr.count("No such file or directory") == 1, done.stderr
    assert {path.name for path in (home / ".local/share/glyphpress/reader").iterdir()} == {"one", "current", ".lock"}

"""Files that tests share are made once in a run, whichever of its processes asks first."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from targets.artifact import Artifact
from targets.metadata import load_artifact


def run_folder(factory: pytest.TempPathFactory) -> Path:
    """Return the folder that all processes of this run share; xdist gives each of them one inside it."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


def once(path: Path, make: Callable[[Path], object]) -> Path:
    """Return path, made unless it is there; another process that wants it waits."""
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            make(path)
    return path


def artifact_once(path: Path, make: Callable[[Path], Artifact]) -> Artifact:
    """Return the file at path as it is loaded, made unless it is there."""
    return load_artifact(once(path, make))

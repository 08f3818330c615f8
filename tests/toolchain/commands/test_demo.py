"""What `demo` does about its folders; tests/test_privacy.py runs it to its end."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toolchain.commands import press
from toolchain.core.context import RunContext
from toolchain.core.errors import UsageProblem


def forbidden(*_: Any, **__: Any) -> None:
    raise AssertionError("it should have been refused before any work")


def apart(move: Callable[..., None], disk: Path) -> Callable[..., None]:
    """Return a move of files that treats `disk` as a disk of its own."""

    def moved(source: Any, target: Any, **options: Any) -> None:
        if Path(source).is_relative_to(disk) != Path(target).is_relative_to(disk):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(source))
        move(source, target, **options)

    return moved


def test_the_trained_model_reaches_the_results_from_a_temporary_folder_on_another_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, out = tmp_path / "tmpfs", tmp_path / "out"
    disk.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, apart(getattr(os, name), disk))
    monkeypatch.setattr(press, "train", lambda *_, out, **__: out.write_bytes(b"weights"))
    monkeypatch.setattr(press, "press", lambda _, folder, *__: folder.mkdir())
    press.demo(out)
    assert (out / "model.pt").read_bytes() == b"weights"
    assert not list(disk.iterdir())


@pytest.mark.parametrize(
    ("existing", "force", "message"),
    [
        ("report.json", False, "already there; give another name, or --force"),
        ("notes.txt", False, "not even --force replaces it"),
        ("notes.txt", True, "not even --force replaces it"),
    ],
)
def test_a_folder_that_is_taken_is_refused_before_anything_is_trained(
    existing: str, force: bool, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / existing).write_text("old")
    monkeypatch.setattr(press, "train", forbidden)
    with pytest.raises(UsageProblem, match=message):
        press.demo(tmp_path, RunContext(force=force))
    assert (tmp_path / existing).read_text() == "old"

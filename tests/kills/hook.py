"""Ends the process by a signal between two of its file operations, which Python's audit events count."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHANGES = {"os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.link", "os.symlink", "os.truncate"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def before_operation(root: Path, act: Callable[[int], None]) -> None:
    """Call `act` with 1, 2, 3 ... before each operation that changes something below `root`, until the process ends."""
    done = [0]
    below = f"{os.path.realpath(root)}/"

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if _changed(event, args).startswith(below):
            done[0] += 1
            act(done[0])

    sys.addaudithook(hook)


def end_at(root: Path, operation: int, number: int) -> None:
    """Send this process a signal before one of its operations below `root`."""
    before_operation(root, lambda done: os.kill(os.getpid(), number) if done == operation else None)


def _changed(event: str, args: tuple[Any, ...]) -> str:
    """Return the path that an audit event is about to change, or an empty string."""
    if event == "open":
        path, _, flags = args
        return "" if isinstance(path, int) or not flags & WRITES else _joined(path)
    if event not in CHANGES or isinstance(args[0], int):
        return ""
    # Trees are removed by names below an open folder.
    folder = args[-1] if event in {"os.rmdir", "os.remove"} else -1
    return _joined(args[0], folder if isinstance(folder, int) else -1)


def _joined(path: str | bytes, folder: int = -1) -> str:
    base = Path(f"/proc/self/fd/{folder}").readlink() if folder >= 0 else Path.cwd()
    return os.path.normpath(base / os.fsdecode(path))

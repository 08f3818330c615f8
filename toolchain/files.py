"""Results appear whole or not at all, and never over something that is there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from toolchain.errors import UsageProblem

MARK = "report.json"


def refuse_existing(path: Path, *, force: bool) -> None:
    """Raise UsageProblem when `path` is there and `force` is not given; call it before long work."""
    if path.exists() and not force:
        raise UsageProblem(f"{path} is already there; give another name, or --force to overwrite it")


@contextmanager
def whole_file(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its name when the block ends without an error."""
    refuse_existing(path, force=force)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".glyphpress-", dir=path.parent) as folder:
        # The suffix stays, since converters look at it.
        part = Path(folder) / path.name
        yield part
        part.replace(path)


@contextmanager
def whole_folder(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that takes its name when the block ends without an error.

    `force` replaces only a folder that is empty or that holds our own report, never a stranger's files.
    """
    occupied = path.exists() and (not path.is_dir() or any(path.iterdir()))
    if occupied:
        refuse_existing(path, force=force)
        if not (path / MARK).is_file():
            raise UsageProblem(f"{path} holds no {MARK} of an earlier press; --force will not replace it, name another")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".glyphpress-", dir=path.parent) as folder:
        part = Path(folder) / "new"
        part.mkdir()
        yield part
        if path.exists():
            path.rename(Path(folder) / "old") if occupied else shutil.rmtree(path)
        part.rename(path)

"""Results appear whole or not at all, and never over something that is there."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from toolchain.errors import UsageProblem

MARK = "report.json"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def refuse_existing(path: Path, *, force: bool) -> None:
    """Raise UsageProblem when `path` is there without `force`, or cannot be written; call it before long work."""
    if path.exists() and not force:
        raise UsageProblem(f"{path} is already there; give another name, or --force to overwrite it")
    place = next(parent for parent in path.absolute().parents if parent.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise UsageProblem(f"{path} cannot be written: {place} is no folder that takes files; name another place")


def refuse_source(path: Path, source: Path) -> None:
    """Raise UsageProblem when `path` is the very file that it is to be made from, which not even force replaces."""
    if path.exists() and source.exists() and path.samefile(source):
        raise UsageProblem(f"{path} is the file that it is to be made from; give another name")


def refuse_unfit(path: Path, suffix: str, *, force: bool) -> None:
    """Raise UsageProblem where `path` has another suffix or `refuse_existing` refuses it; call it before long work."""
    if path.suffix != suffix:
        raise UsageProblem(f"{path} should end in {suffix}; name it so")
    refuse_existing(path, force=force)


@contextmanager
def whole_file(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its name when the block ends without an error."""
    refuse_existing(path, force=force)
    with _room_beside(path) as folder:
        # The suffix stays, since converters look at it.
        part = folder / path.name
        yield part
        part.replace(path)


def write_whole(path: Path, words: str, *, force: bool = False) -> None:
    """Write a text in UTF-8, whole or not at all; raises as `whole_file` does."""
    with whole_file(path, force=force) as part:
        # A file name that is no UTF-8 has halves of pairs, which are written as \udcff.
        part.write_text(words, encoding="utf-8", errors="backslashreplace")


@contextmanager
def whole_folder(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that takes its name when the block ends without an error.

    `force` replaces only a folder that is empty or that holds our own report, never a stranger's files.
    """
    occupied = path.exists() and (not path.is_dir() or any(path.iterdir()))
    refuse_existing(path, force=force or not occupied)
    if occupied and not (path / MARK).is_file():
        raise UsageProblem(f"{path} holds no {MARK} of an earlier press; --force will not replace it, name another")
    with _room_beside(path) as folder:
        part = folder / "new"
        part.mkdir()
        yield part
        if path.exists():
            path.rename(folder / "old") if occupied else shutil.rmtree(path)
        part.rename(path)


@contextmanager
def _room_beside(path: Path) -> Iterator[Path]:
    """Yield a temporary folder on the disk of `path`; parents that were made for it go when the block fails."""
    missing = [parent for parent in path.absolute().parents if not parent.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".glyphpress-", dir=path.parent) as folder:
            yield Path(folder)
    except BaseException as error:
        for parent in missing:
            # Someone else may have put something there meanwhile.
            with suppress(OSError):
                parent.rmdir()
        if isinstance(error, OSError) and error.errno in _FULL:
            # Python does not say which file did not fit; the outermost name is the one that was asked for.
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise

"""What is built once and kept in the user's cache: whole or not at all, by one process at a time."""

from __future__ import annotations

import atexit
import errno
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from platformdirs import user_cache_path

from targets.errors import TargetUnavailable

_LITTLE = 1 << 20
"""A disk with fewer bytes free counts as full."""
_CROWDED = 16 << 20
"""With fewer bytes free a library may well have failed for want of them."""
_ROOMY = 2 << 30
"""A disk with more free is not the one that was full a moment ago."""
_FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT), "ENOSPC")
"""How programs say that a disk is full."""


def place(kind: str, made_of: str) -> Path:
    """Return where `cached` keeps what `made_of` describes, there or not. kind: a path, as `arm64/root`."""
    name = f"{kind}-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}"
    try:
        folder = user_cache_path("glyphpress") / name
        taken = next(parent for parent in (folder, *folder.parents) if parent.exists())
    except (OSError, RuntimeError):
        # No home, or one that may not be looked into.
        return _spare() / name
    return folder if folder.is_dir() or (taken.is_dir() and os.access(taken, os.W_OK)) else _spare() / name


def cached(kind: str, made_of: str, build: Callable[[Path], None], *, need: int = 0) -> Path:
    """Return the folder of what `made_of` describes, building it where it is not there yet.

    `build` fills a folder beside it, which gets its name when it is whole. Without a cache that takes files it is built
    for this process alone. need: about how many bytes that takes. Raises TargetUnavailable where the disk has fewer,
    and what `build` raises.
    """
    folder = place(kind, made_of)
    if folder.is_dir():
        return folder
    home, name = folder.parent, Path(kind).name
    home.mkdir(parents=True, exist_ok=True)
    with _locked(home / f"{name}.lock"):
        if not folder.is_dir():
            _sweep(home, name)
            _require_space(home, need)
            part = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=home))
            try:
                build(part)
                part.chmod(0o755)
                part.rename(folder)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    return folder


@cache
def _spare() -> Path:
    folder = tempfile.mkdtemp(prefix="glyphpress-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _sweep(home: Path, name: str) -> None:
    """Remove what builders left that were killed; who holds the lock knows that no other one lives."""
    half = re.compile(rf"\.{re.escape(name)}-[a-z0-9_]{{8}}")
    for left in [entry for entry in home.iterdir() if half.fullmatch(entry.name)]:
        shutil.rmtree(left, ignore_errors=True)


def _require_space(home: Path, need: int) -> None:
    for folder, variable in _disks(home):
        free = shutil.disk_usage(folder).free
        if free < need:
            raise TargetUnavailable(
                f"{folder} has {free / 1e6:,.0f} MB free and about {need / 1e6:,.0f} MB are needed",
                f"free some, or let {variable} name a folder on another disk",
            )


def _disks(home: Path | None) -> Iterator[tuple[Path, str]]:
    """Yield a folder on the disk of the cache and of temporary files, each with the variable that names another one."""
    # There may be no home.
    with suppress(OSError, RuntimeError):
        home = home or user_cache_path("glyphpress")
        yield next(parent for parent in (home, *home.parents) if parent.exists()), "XDG_CACHE_HOME"
    yield temporary(), "TMPDIR"


def temporary() -> Path:
    """Return the folder that temporary files are meant to lie in, though its disk may be full.

    Not `tempfile.gettempdir`: that passes over a full disk, and tries each folder by a file, which a kill would leave.
    """
    named = map(os.environ.get, ("TMPDIR", "TEMP", "TMP"))
    return next((Path(name) for name in named if name and Path(name).is_dir()), Path("/tmp"))


def full_disk(home: Path | None = None, *, said: str = "") -> str:
    """Return which of the cache's and the temporary folder's disks is full, or an empty string.

    said: the error of what failed. Where that speaks of a full disk, but both have room again, since what filled one
    of them is gone, the one with the least room is named.
    """
    free = {place: shutil.disk_usage(place[0]).free for place in _disks(home)}
    full = [place for place, room in free.items() if room < _LITTLE]
    if full or not any(words in said for words in _FULL):
        return "; ".join(f"the disk of {folder} is full: free some, or set {variable}" for folder, variable in full)
    (folder, variable), room = min(free.items(), key=lambda one: one[1])
    if room > _ROOMY:
        return ""
    return (
        f"most likely the disk of {folder} was full, which has {room / 1e6:,.0f} MB free now: free some, or set "
        f"{variable}"
    )


def crowded_disk(said: str) -> str:
    """Return that temporary files have hardly any room, which many libraries do not say themselves, or nothing.

    said: the error that it would explain; one that names the folder needs no more.
    """
    folder = temporary()
    free = shutil.disk_usage(folder).free
    if free >= _CROWDED or str(folder) in said:
        return ""
    return f"{folder} has {free / 1e6:.1f} MB free for temporary files: if that is why, free some, or set TMPDIR"


def ran(command: Sequence[str | Path], what: str) -> str:
    """Return what a command printed that builds something; raises TargetUnavailable with the last line of its error."""
    try:
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL
        )
    except OSError as error:
        raise TargetUnavailable(f"{what} failed: {error}") from error
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip()
        last = (said.splitlines() or [f"exit {error.returncode}"])[-1]
        advice = full_disk(said=said) or "try again with the network at hand"
        raise TargetUnavailable(f"{what} failed: {last}; {advice}") from error
    return done.stdout


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield

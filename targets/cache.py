"""What is built once and kept in the user's cache: whole or not at all, by one process at a time."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_cache_path

from targets.errors import TargetUnavailable


def place(kind: str, made_of: str) -> Path:
    """Return where `cached` keeps what `made_of` describes, there or not. kind: a path, as `arm64/root`."""
    return user_cache_path("glyphpress") / f"{kind}-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}"


def cached(kind: str, made_of: str, build: Callable[[Path], None]) -> Path:
    """Return the folder of what `made_of` describes, building it where it is not there yet.

    `build` fills a folder beside it, which gets its name when it is whole. Raises what `build` raises.
    """
    folder = place(kind, made_of)
    if folder.is_dir():
        return folder
    home, name = folder.parent, Path(kind).name
    home.mkdir(parents=True, exist_ok=True)
    with _locked(home / f"{name}.lock"):
        if not folder.is_dir():
            part = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=home))
            try:
                build(part)
                part.chmod(0o755)
                part.rename(folder)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    return folder


def ran(command: Sequence[str | Path], what: str) -> str:
    """Return what a command printed that builds something; raises TargetUnavailable with the last line of its error."""
    try:
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL
        )
    except OSError as error:
        raise TargetUnavailable(f"{what} failed: {error}") from error
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip().splitlines()[-1:] or [f"exit {error.returncode}"]
        raise TargetUnavailable(f"{what} failed: {said[0]}; try again with the network at hand") from error
    return done.stdout


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield

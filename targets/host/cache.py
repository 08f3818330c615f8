"""The user's cache: folders that are built once, whole or not at all, by one process at a time.

With what such builds need: programs, wheels for another machine, and messages about full disks.
"""

from __future__ import annotations

import atexit
import errno
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from platformdirs import user_cache_path

from targets.errors import TargetUnavailable

_FULL_BELOW = 1 << 20
"""A disk with fewer bytes free counts as full."""
_CROWDED_BELOW = 16 << 20
"""With fewer bytes free, lack of space may be why a library failed."""
_ROOMY_ABOVE = 2 << 30
"""A disk with more bytes free was not full a moment ago."""
_DISK_FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT), "ENOSPC")
"""How programs report a full disk."""


def cache_folder(kind: str, made_of: str) -> Path:
    """Return the folder in which `cached` keeps what `made_of` describes, present or not. kind: as `arm64/root`."""
    name = f"{kind}-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}"
    try:
        folder = user_cache_path("glyphpress") / name
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    except (OSError, RuntimeError):
        # There is no home, or no permission to read it.
        return _spare() / name
    return folder if folder.is_dir() or (existing.is_dir() and os.access(existing, os.W_OK)) else _spare() / name


def cached(kind: str, made_of: str, build: Callable[[Path], None], *, need: int = 0) -> Path:
    """Return the folder of what `made_of` describes; builds it on first use.

    `build` fills a temporary folder, which is renamed when it is complete. Without a writable cache the folder is built
    for this process alone. need: about how many bytes it takes. Raises TargetUnavailable where the disk has fewer, and
    what `build` raises.
    """
    folder = cache_folder(kind, made_of)
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
    """Remove what killed builders left; the caller holds the lock, so no other builder is running."""
    unfinished = re.compile(rf"\.{re.escape(name)}-[a-z0-9_]{{8}}")
    for folder in [entry for entry in home.iterdir() if unfinished.fullmatch(entry.name)]:
        shutil.rmtree(folder, ignore_errors=True)


def _require_space(home: Path, need: int) -> None:
    for folder, variable in _disks(home):
        free = shutil.disk_usage(folder).free
        if free < need:
            raise TargetUnavailable(
                f"{folder} has {free / 1e6:,.0f} MB free and about {need / 1e6:,.0f} MB are needed",
                f"free some space, or set {variable} to a folder on another disk",
            )


def _disks(home: Path | None) -> Iterator[tuple[Path, str]]:
    """Yield a folder on the disk of the cache, and one on that of temporary files, with their variables."""
    # There may be no home.
    with suppress(OSError, RuntimeError):
        home = home or user_cache_path("glyphpress")
        yield next(parent for parent in (home, *home.parents) if parent.exists()), "XDG_CACHE_HOME"
    yield temporary(), "TMPDIR"


def temporary() -> Path:
    """Return the folder for temporary files, even where its disk is full.

    Not by `tempfile.gettempdir`, which skips a full disk, and tries each folder with a file that a kill would leave.
    """
    named = map(os.environ.get, ("TMPDIR", "TEMP", "TMP"))
    return next((Path(name) for name in named if name and Path(name).is_dir()), Path("/tmp"))


def full_disk(home: Path | None = None, *, message: str = "") -> str:
    """Return which of the cache's and the temporary folder's disks is full, or an empty string.

    message: the error message of what failed. Where it reports a full disk, but both have space again, since the files
    of the failed program are gone, the disk with the least space is named.
    """
    free = {disk: shutil.disk_usage(disk[0]).free for disk in _disks(home)}
    full = [disk for disk, room in free.items() if room < _FULL_BELOW]
    if full or not any(text in message for text in _DISK_FULL):
        return "; ".join(
            f"the disk of {folder} is full: free some space, or set {variable}" for folder, variable in full
        )
    (folder, variable), room = min(free.items(), key=lambda item: item[1])
    if room > _ROOMY_ABOVE:
        return ""
    return (
        f"most likely the disk of {folder} was full, which has {room / 1e6:,.0f} MB free now: free some space, "
        f"or set {variable}"
    )


def crowded_disk(message: str) -> str:
    """Return a hint that there is hardly any space for temporary files, which many libraries do not report; else "".

    message: the error message that this would explain; nothing is added to one that names the folder.
    """
    folder = temporary()
    free = shutil.disk_usage(folder).free
    if free >= _CROWDED_BELOW or str(folder) in message:
        return ""
    return f"{folder} has {free / 1e6:.1f} MB free for temporary files: if that is why, free some space, or set TMPDIR"


def run_program(command: Sequence[str | Path], what: str) -> str:
    """Run a command and return its output; raises TargetUnavailable with the line of its errors that says why.

    what: the command's name in the message.
    """
    try:
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL
        )
    except OSError as error:
        raise TargetUnavailable(f"{what} failed: {error}") from error
    except subprocess.CalledProcessError as error:
        output = (error.stderr or error.stdout).strip()
        advice = full_disk(message=output) or "try again with a network connection"
        raise TargetUnavailable(f"{what} failed: {_why(output) or f'exit {error.returncode}'}; {advice}") from error
    return done.stdout


def _why(output: str) -> str:
    lines = output.splitlines() or [""]
    # npm ends with advice and the name of its log; why a fetch failed stands further up.
    return next((line for line in lines if ", reason: " in line), lines[-1])


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


RUNTIME_PACKAGES = ("numpy", "onnxruntime", "ai-edge-litert", "flatbuffers", "protobuf")
PICTURE_PACKAGES = ("pillow", "scipy")
"""What makes a glyph of a picture; a board needs them once a model is deployed there."""
ARCHITECTURES = ("aarch64", "x86_64")
"""Architectures for which all of them have wheels."""
_MANYLINUX = ("_2_28", "_2_27", "_2_17", "2014")


def installed_versions(packages: Sequence[str] = RUNTIME_PACKAGES) -> list[str]:
    """Return `NAME==VERSION` of every package that this host has, by default of those of the runtimes."""
    pins = []
    for name in packages:
        try:
            pins.append(f"{name}=={version(name)}")
        except PackageNotFoundError:
            continue  # a host without LiteRT cannot make .tflite files to run there
    return pins


def install_wheels(folder: Path, python: str, architecture: str, packages: Sequence[str] = RUNTIME_PACKAGES) -> None:
    """Install packages into `folder` for that Python (`3.11`) and architecture.

    They have the host's versions, so that the same code runs there; where there are none for that Python, the newest
    ones, and no LiteRT where that has none at all. Raises TargetUnavailable with pip's last line.
    """
    pins = installed_versions(packages)
    newest = [pin.partition("==")[0] for pin in pins]
    errors = ""
    for requirements in (pins, newest, [name for name in newest if name != "ai-edge-litert"]):
        pip = _pip_command(folder, python, architecture, requirements)
        done = subprocess.run(
            pip, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, check=False
        )
        if not done.returncode:
            return
        errors = done.stderr.strip() or "pip failed"
    advice = full_disk(folder, message=errors) or "check that the package registry can be reached"
    raise TargetUnavailable(f"no wheels for Python {python} on {architecture} ({errors.splitlines()[-1]}); {advice}")


def _pip_command(folder: Path, python: str, architecture: str, requirements: list[str]) -> list[str]:
    platforms = [option for tag in _MANYLINUX for option in ("--platform", f"manylinux{tag}_{architecture}")]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--upgrade"]
    wheels = ["--only-binary=:all:", "--no-compile", "--python-version", python, "--target", str(folder)]
    return [*pip, *wheels, *platforms, *requirements]

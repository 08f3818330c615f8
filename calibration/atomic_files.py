"""Atomic results: files and folders get their final names when they are complete.

Each process works in hidden folders beside its results, `.glyphpress-MACHINE-PID-START-RANDOM`. MACHINE identifies a
boot of the machine and its process namespace. What a killed process left there, the next process finishes or removes.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

PREFIX = ".glyphpress-"
_OURS = re.compile(rf"{re.escape(PREFIX)}([0-9a-f]+)-(\d+)-(\d+)-\w+")
_ABANDONED_S = 7 * 24 * 3600
"""Age at which a folder of another machine, whose processes cannot be seen here, counts as abandoned."""
_AT_FDCWD = -100
_NOREPLACE, _EXCHANGE = 1, 2
_UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM}
_OCCUPIED = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}


@contextmanager
def room(parent: Path) -> Iterator[Path]:
    """Yield a hidden folder in `parent` that is removed at the end; first sweep those of killed processes."""
    sweep(parent)
    with tempfile.TemporaryDirectory(prefix=_signature(), dir=parent) as name, Path(name, "lock").open("wb") as lock:
        # Some network disks do not support locks.
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_SH)
        yield Path(name)


def sweep(parent: Path) -> None:
    """Finish or remove what killed processes left in `parent`; a folder whose process may be alive is kept."""
    with suppress(OSError):
        for entry in list(os.scandir(parent)):
            if entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False):
                # Another process may sweep it at the same moment.
                with suppress(OSError):
                    _sweep(Path(entry.path))


def place_folder(part: Path, path: Path, *, replaceable: Callable[[Path], bool] | None = None) -> None:
    """Rename the finished folder `part`, which is in a `room` beside `path`, to `path`.

    It replaces an empty folder, or one that `replaceable` accepts; the two are exchanged in one step where the disk
    supports it. Raises FileExistsError where something else is there, and changes nothing then.
    """
    _flush(part)
    try:
        part.rename(path)
    except OSError as error:
        if error.errno not in _OCCUPIED:
            raise
        _exchange(part, path, replaceable or (lambda _folder: False))
    _flush_folder(path.parent)


def place_files(parts: Sequence[Path], folder: Path, *, replace: bool) -> None:
    """Move finished files from one folder of a `room` in `folder` to `folder`, in order.

    Where the process is killed in between, the next `sweep` moves the others. Raises FileExistsError where the first
    file's name is taken and `replace` is false; the other files replace what is there.
    """
    first, *others = parts
    _flush(first.parent)
    # By the inode the sweep can tell whether the first file has been moved.
    pending = first.parent.with_name(f"pending-{first.stat().st_ino}")
    first.parent.rename(pending)
    try:
        if replace:
            (pending / first.name).replace(folder / first.name)
        else:
            _rename_to_free(pending / first.name, folder / first.name)
        for other in others:
            (pending / other.name).replace(folder / other.name)
    except BaseException:
        _finish_files(pending, folder)
        if pending.exists():
            pending.rename(first.parent)
        raise
    _flush_folder(folder)


def put_aside(part: Path, path: Path) -> Path:
    """Rename a finished folder to a free name like that of `path`, which is taken, and return it."""
    number = 1
    while True:
        free = path.with_name(f"{path.name}.{number}")
        try:
            free.mkdir()
        except FileExistsError:
            number += 1
        else:
            part.rename(free)
            return free


def _exchange(part: Path, path: Path, replaceable: Callable[[Path], bool]) -> None:
    occupied = FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    if not path.is_dir() or not replaceable(path):
        raise occupied
    if _renameat2(part, path, _EXCHANGE):
        # Another process may have put another folder there since the check.
        if not replaceable(part):
            _renameat2(part, path, _EXCHANGE)
            raise occupied
        return
    old = part.parent.with_name("old") / path.name
    old.parent.mkdir()
    try:
        path.rename(old)
        if not replaceable(old):
            raise occupied
        part.rename(path)
    except BaseException:
        if old.exists() and not path.exists():
            old.rename(path)
        raise


def _rename_to_free(part: Path, path: Path) -> None:
    if not _renameat2(part, path, _NOREPLACE):
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        part.rename(path)


def _renameat2(source: Path, target: Path, flags: int) -> bool:
    """Rename by renameat2(2); return whether the system and the disk support it."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    # os.rename raises this audit event too.
    sys.audit("os.rename", source, target, -1, -1)
    if call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags) == 0:
        return True
    if (number := ctypes.get_errno()) in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(target))


def _flush(tree: Path) -> None:
    """Flush a folder and everything in it to the disk, before it gets its final name."""
    for folder, _, names in os.walk(tree):
        for name in names:
            with Path(folder, name).open("rb") as file:
                os.fsync(file.fileno())
        _flush_folder(Path(folder))


def _flush_folder(folder: Path) -> None:
    # Some disks cannot flush a folder.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _sweep(folder: Path) -> None:
    if folder.lstat().st_uid != os.geteuid() or not _abandoned(folder):
        return
    # Only one of two processes can rename it; if that is killed too, the new name shows it.
    mine = folder.rename(folder.with_name(f"{_signature()}{os.urandom(4).hex()}"))
    for old in mine.glob("old/*"):
        if not os.path.lexists(mine.parent / old.name):
            new = mine / "new" / old.name
            (new if new.exists() else old).rename(mine.parent / old.name)
    for pending in mine.glob("pending-*"):
        _finish_files(pending, mine.parent)
    shutil.rmtree(mine)


def _finish_files(pending: Path, folder: Path) -> None:
    """Move the other files of a result whose first file has been moved; else leave them."""
    inode = int(pending.name.removeprefix("pending-"))
    if any(entry.inode() == inode for entry in os.scandir(folder)):
        for other in pending.iterdir():
            other.replace(folder / other.name)


def _abandoned(folder: Path) -> bool:
    """Return whether the process that made a hidden folder is gone."""
    name = _OURS.fullmatch(folder.name)
    if name and name[1] == _machine():
        return _started(int(name[2])) != int(name[3])
    # Of another machine, container or boot, or of an early version, which kept a replaced folder in `old`.
    if not name and (folder / "old").exists():
        return False
    newest = max(path.lstat().st_mtime for path in (folder, *folder.rglob("*")))
    return time.time() - newest > _ABANDONED_S and not _locked(folder / "lock")


def _locked(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno in {errno.EAGAIN, errno.EACCES}
    return False


def _signature() -> str:
    return f"{PREFIX}{_machine()}-{os.getpid()}-{_started(os.getpid())}-"


@cache
def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
        processes = Path("/proc/self/ns/pid").readlink()
    except OSError:
        # Processes cannot be identified here, so only age shows that a folder is abandoned.
        return os.urandom(4).hex()
    return hashlib.sha256(boot + os.fsencode(processes)).hexdigest()[:8]


def _started(pid: int) -> int:
    """Return the start time of a process in the kernel's ticks; 0 where it does not exist or is a zombie."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if state in {b"Z", b"X"} else int(fields[18])

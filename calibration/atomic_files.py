"""Results take their final names whole, and what a killed process left behind is finished or removed by the next one.

Each process works in hidden folders beside its results, whose names say who made them:
`.glyphpress-PLACE-PID-START-RANDOM`. PLACE stands for a boot of the machine and its process namespace.
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
_FORGOTTEN_S = 7 * 24 * 3600
"""How long a folder from another machine must rest before it is swept, since its process cannot be seen from here."""
_AT_FDCWD = -100
_NOREPLACE, _EXCHANGE = 1, 2
_UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM}
_OCCUPIED = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}


@contextmanager
def room(parent: Path) -> Iterator[Path]:
    """Yield a hidden folder in `parent` that goes at the end; those of processes that were killed are swept first."""
    sweep(parent)
    with tempfile.TemporaryDirectory(prefix=_signature(), dir=parent) as name, Path(name, "lock").open("wb") as lock:
        # Some network disks have no locks.
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_SH)
        yield Path(name)


def sweep(parent: Path) -> None:
    """Finish or remove what killed processes left in `parent`; a folder whose owner may be alive stays."""
    with suppress(OSError):
        for entry in list(os.scandir(parent)):
            if entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False):
                # Another process may sweep it at the same moment.
                with suppress(OSError):
                    _sweep(Path(entry.path))


def place_folder(part: Path, path: Path, *, replaceable: Callable[[Path], bool] | None = None) -> None:
    """Give the finished folder `part`, which lies in a `room` beside `path`, that name.

    Only an empty folder makes way for it, or one that `replaceable` accepts; both are exchanged in one step where the
    disk can do that. Raises FileExistsError where something else is there, and leaves both as they were.
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
    """Give finished files, which lie in one folder of a `room` in `folder`, their names there, the first one first.

    A process that is killed in between leaves the others to the next `sweep`. Raises FileExistsError where the first
    one's name is taken and `replace` is not given; the others follow it over whatever is there.
    """
    first, *others = parts
    _flush(first.parent)
    # Now the sweep can tell whether the first file has got its name: that has this inode then.
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
    """Give a finished folder a free name like that of `path`, which is taken, and return it."""
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
    taken = FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    if not path.is_dir() or not replaceable(path):
        raise taken
    if _renameat2(part, path, _EXCHANGE):
        # Someone may have put another folder there since it was looked at.
        if not replaceable(part):
            _renameat2(part, path, _EXCHANGE)
            raise taken
        return
    old = part.parent.with_name("old") / path.name
    old.parent.mkdir()
    try:
        path.rename(old)
        if not replaceable(old):
            raise taken
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
    """Rename as renameat2(2) does; return whether the system and the disk can do that."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    # As os.rename tells those who listen.
    sys.audit("os.rename", source, target, -1, -1)
    if call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags) == 0:
        return True
    if (number := ctypes.get_errno()) in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(target))


def _flush(tree: Path) -> None:
    """Bring a folder and everything in it to the disk, before a name makes it a result."""
    for folder, _, names in os.walk(tree):
        for name in names:
            with Path(folder, name).open("rb") as file:
                os.fsync(file.fileno())
        _flush_folder(Path(folder))


def _flush_folder(folder: Path) -> None:
    # Some disks cannot do that for a folder.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _sweep(left: Path) -> None:
    if left.lstat().st_uid != os.geteuid() or not _abandoned(left):
        return
    # Of two sweepers one gets it, and if that is killed too, its own name says so.
    mine = left.rename(left.with_name(f"{_signature()}{os.urandom(4).hex()}"))
    for old in mine.glob("old/*"):
        if not os.path.lexists(mine.parent / old.name):
            new = mine / "new" / old.name
            (new if new.exists() else old).rename(mine.parent / old.name)
    for pending in mine.glob("pending-*"):
        _finish_files(pending, mine.parent)
    shutil.rmtree(mine)


def _finish_files(pending: Path, folder: Path) -> None:
    """Move the other files of a result whose first file has its name; where that has not, they are nothing."""
    inode = int(pending.name.removeprefix("pending-"))
    if any(entry.inode() == inode for entry in os.scandir(folder)):
        for other in pending.iterdir():
            other.replace(folder / other.name)


def _abandoned(left: Path) -> bool:
    """Return whether the process that made a hidden folder is gone."""
    name = _OURS.fullmatch(left.name)
    if name and name[1] == _place():
        return _started(int(name[2])) != int(name[3])
    # Of another machine, container or boot, or of an early version, which kept a folder that it replaced in `old`.
    if not name and (left / "old").exists():
        return False
    newest = max(path.lstat().st_mtime for path in (left, *left.rglob("*")))
    return time.time() - newest > _FORGOTTEN_S and not _locked(left / "lock")


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
    return f"{PREFIX}{_place()}-{os.getpid()}-{_started(os.getpid())}-"


@cache
def _place() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
        processes = Path("/proc/self/ns/pid").readlink()
    except OSError:
        # Processes cannot be told apart here, so nothing but age says that a folder was left.
        return os.urandom(4).hex()
    return hashlib.sha256(boot + os.fsencode(processes)).hexdigest()[:8]


def _started(pid: int) -> int:
    """Return when a process started, in the kernel's ticks; 0 where there is none, or only its exit code is left."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if state in {b"Z", b"X"} else int(fields[18])

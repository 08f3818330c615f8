"""Writing results: a file or folder appears complete or not at all, and overwrites nothing without `force`."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from calibration import atomic_files
from targets.host.cache import temporary
from targets.host.text import instead_of, result_kind
from toolchain.core.errors import EvidenceError, StageError, UsageProblem
from toolchain.core.interrupt import held

MARK = "report.json"
_COMMANDS = {"report": "press"}
"""The command of a kind of report, where it has another name."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def refuse_existing(path: Path, *, force: bool) -> None:
    """Raise UsageProblem when `path` is there without `force`, or cannot be written; call it before long work.

    The place is tried (`_try_place`), so a full disk raises OSError.
    """
    atomic_files.sweep(path.parent)
    _refuse_irreplaceable(path, force=force)
    _try_place(path)


def _refuse_irreplaceable(path: Path, *, force: bool) -> None:
    _refuse_taken(path, force=force)
    # A name that is too long is never there, but pathlib would raise; `_try_place` says what is wrong with it.
    if os.path.lexists(path) and path.exists() and not path.is_file():
        raise UsageProblem(f"{path} is not a file that can be replaced; give another name")
    _refuse_mounted(path)


def _refuse_taken(path: Path, *, force: bool) -> None:
    # A symbolic link whose target is missing still takes the name.
    if os.path.lexists(path) and not force:
        raise UsageProblem(f"{path} is already there; give another name, or --force to overwrite it")


def _refuse_mounted(path: Path) -> None:
    """Raise UsageProblem where a disk, or another folder or file, is mounted on `path`: no rename replaces a mount."""
    try:
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_bytes().splitlines()]
    except OSError:
        mounts = []
    # mountinfo writes blanks and the like as octal escapes: proc_pid_mountinfo(5).
    mount_points = {re.sub(rb"\\(\d{3})", lambda code: bytes([int(code[1], 8)]), mount) for mount in mounts}
    if os.path.ismount(path) or os.fsencode(path.resolve()) in mount_points:
        other = f"a folder in it, such as {path / 'out'}" if path.is_dir() else "another file"
        raise UsageProblem(f"{path} is where a disk is mounted, which no finished result can replace; name {other}")


def _try_place(path: Path) -> None:
    """Make a file of that name, in a temporary folder beside `path`, and remove it.

    Permissions do not tell whether that works: root has all of them, in /proc and on a read-only disk too. Parents that
    are missing are tried in the temporary folder as well. Raises as `_refusing_unwritable` does.
    """
    with _refusing_unwritable(path):
        # Without `..`, which would lead out of the temporary folder.
        parent = path.parent.resolve()
        folder = _nearest_folder(parent / "file")
        with atomic_files.room(folder) as room:
            trial = room / parent.relative_to(folder) / path.name
            trial.parent.mkdir(parents=True, exist_ok=True)
            trial.touch()


@contextmanager
def _refusing_unwritable(path: Path) -> Iterator[None]:
    """Raise UsageProblem where the block cannot make what `path` needs, and OSError with `path` where no room is."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise OSError(error.errno, error.strerror, str(path)) from error
        if error.errno == errno.ENAMETOOLONG:
            raise UsageProblem(f"{path} cannot be written: its name is too long; give a shorter one") from error
        # Folders of the system, such as /proc, answer that there is no such file.
        why = "" if error.errno == errno.ENOENT else f" ({error.strerror})"
        folder = _nearest_folder(path)
        raise UsageProblem(
            f"{path} cannot be written{why}: {folder} is not a folder that can be written to; name another place"
        ) from error


def _nearest_folder(path: Path) -> Path:
    """Return the nearest parent that is there."""
    return next(parent for parent in path.absolute().parents if os.path.lexists(parent))


def is_full(error: OSError) -> bool:
    """Return whether there is no room on the disk, or for this user, or a file may not get larger."""
    return error.errno in _FULL


def refuse_source(path: Path, source: Path) -> None:
    """Raise UsageProblem when `path` is the very file that it is to be made from, which not even force replaces."""
    with suppress(OSError):  # one of them is missing
        if path.samefile(source):
            raise UsageProblem(f"{path} is the file that it is to be made from; give another name")


def refuse_unfit(path: Path, suffix: str, *, force: bool) -> None:
    """Raise UsageProblem where `path` has another suffix or `refuse_existing` refuses it; call it before long work."""
    if path.suffix != suffix:
        raise UsageProblem(f"{path} should end in {suffix}; name it so")
    refuse_existing(path, force=force)


@contextmanager
def whole_file(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its name when the block ends without an error.

    Raises StageError, and says where the finished file is, when another one got the name meanwhile.
    """
    with whole_files(path, force=force) as (part,):
        yield part


@contextmanager
def whole_files(path: Path, *others: Path, force: bool = False) -> Iterator[tuple[Path, ...]]:
    """Yield temporary paths for a file and those that belong to it in the same folder, as `whole_file` does for one.

    They take their names together. The others replace whatever has their names: without `path` those are remains.
    """
    _refuse_irreplaceable(path, force=force)
    with _room_beside(path) as room:
        (room / "new").mkdir()
        # The suffixes stay, since converters look at them.
        part, *rest = (room / "new" / each.name for each in (path, *others))
        yield part, *rest
        try:
            with held():
                atomic_files.place_files([part, *(each for each in rest if each.exists())], path.parent, replace=force)
        except FileExistsError as error:
            raise _taken(room / "new", path) from error


def write_whole(path: Path, text: str, *, force: bool = False) -> None:
    """Write a text in UTF-8, whole or not at all; raises as `whole_file` does."""
    with whole_file(path, force=force) as part:
        # A file name that is not UTF-8 holds lone surrogates; they are written as escapes such as \udcff.
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def refuse_folder(path: Path, *, force: bool, kind: str = "report") -> None:
    """Raise UsageProblem where `whole_folder` would not take `path`; call it before long work, as `refuse_existing`."""
    with _refusing_unwritable(path):
        target = _behind(path)
        atomic_files.sweep(target.parent)
        occupied = target.exists() and (not target.is_dir() or any(target.iterdir()))
    if occupied and not _ours(target):
        raise UsageProblem(
            f"{path} is already there and holds no {MARK} of an earlier press, so that not even --force replaces it; "
            "give another name"
        )
    if force and occupied and not _replaceable(target, kind):
        found = result_kind(target / MARK)
        raise UsageProblem(
            f"{path} holds the results of another command, `glyphpress {_COMMANDS.get(found, found)}`, so that not "
            "even --force replaces it; give another name"
        )
    _refuse_taken(path, force=force or not occupied)
    _refuse_mounted(target)
    _try_place(target)
    if target.is_dir() and not os.access(target, os.W_OK):
        raise UsageProblem(f"{path} cannot be written: its permissions forbid it; name another place")


def _behind(path: Path) -> Path:
    """Return the folder that a symbolic link leads to: that one is written, and the link stays as it is."""
    return path.resolve() if path.is_symlink() else path


@contextmanager
def whole_folder(path: Path, *, force: bool = False, kind: str = "report") -> Iterator[Path]:
    """Yield a temporary folder beside `path` that takes its name when the block ends without an error.

    `force` replaces only a folder that is empty or that holds a report of the same `kind` (`result_kind`), never other
    files. Raises StageError, and says where the finished folder is, when something else got the name meanwhile.
    """
    target = _behind(path)
    refuse_folder(path, force=force, kind=kind)
    with _room_beside(target) as room:
        part = room / "new" / target.name
        part.mkdir(parents=True)
        if target.is_dir():
            # The new folder keeps the permissions of the one that it replaces.
            part.chmod(stat.S_IMODE(target.stat().st_mode))
        yield part
        try:
            with held():
                atomic_files.place_folder(part, target, replaceable=partial(_replaceable, kind=kind) if force else None)
        except FileExistsError as error:
            raise _taken(part, target) from error


@contextmanager
def scratch() -> Iterator[None]:
    """Let `tempfile` work in one hidden folder of the temporary directory, which is swept even after a kill."""
    before = tempfile.tempdir
    with ExitStack() as stack:
        # Most commands need no temporary file, and those that do raise an error of their own.
        with suppress(OSError):
            tempfile.tempdir = str(stack.enter_context(atomic_files.room(Path(before) if before else temporary())))
        try:
            yield
        finally:
            tempfile.tempdir = before


def require_room(bytes_needed: int) -> None:
    """Raise StageError where the disk of temporary files has fewer than `bytes_needed` bytes free."""
    folder = temporary()
    if (free := shutil.disk_usage(folder).free) < bytes_needed:
        raise StageError(
            f"{folder} has {free / 1e6:.1f} MB free and about {bytes_needed / 1e6:.1f} MB of temporary files are "
            "needed; free some space, or set TMPDIR"
        )


def _ours(folder: Path) -> bool:
    return (folder / MARK).is_file()


def _replaceable(folder: Path, kind: str) -> bool:
    # A report that cannot be told any more, such as one that was cut off, may be made again.
    return _ours(folder) and result_kind(folder / MARK) in ("", kind)


def _taken(part: Path, path: Path) -> StageError:
    aside = atomic_files.put_aside(part, path)
    return StageError(f"{path} was made by another process meanwhile, and stays; the finished results are in {aside}")


@contextmanager
def _room_beside(path: Path) -> Iterator[Path]:
    """Yield a temporary folder on the disk of `path`; parents that were made for it go when the block fails."""
    missing, temporary_file = [parent for parent in path.absolute().parents if not parent.exists()], False
    try:
        with ExitStack() as stack:
            with _refusing_unwritable(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                folder = stack.enter_context(atomic_files.room(path.parent))
            try:
                yield folder
            except OSError as error:
                temporary_file = _is_temporary(error, folder)
                raise
    except BaseException as error:
        for parent in missing:
            # Another process may have put a file there meanwhile.
            with suppress(OSError):
                parent.rmdir()
        hidden = isinstance(error, OSError) and (error.errno in _FULL or atomic_files.PREFIX in str(error.filename))
        if isinstance(error, OSError) and hidden and not temporary_file:
            # Python names no file, or a hidden temporary one; the user knows the result by `path`.
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _is_temporary(error: OSError, folder: Path) -> bool:
    """Return whether a temporary file could not be written, rather than the result in `folder`, which is still there.

    Where the error names no file, it is taken to be of the disk that has less room.
    """
    if named := error.filename2 or error.filename:
        return atomic_files.PREFIX in str(named) and folder.name not in str(named)
    return shutil.disk_usage(folder).free > shutil.disk_usage(temporary()).free


def refuse_other(path: Path, *expected: str) -> None:
    """Raise EvidenceError, with what to do, where a result has another schema than `expected` or a later version."""
    if advice := instead_of(path, *expected):
        raise EvidenceError(f"{path} {advice}")

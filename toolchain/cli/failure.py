"""How the program ends after an error: one line and an exit code; a bug also keeps its traceback."""

from __future__ import annotations

import errno
import os
import traceback

import rich_click as click
from click.exceptions import NoArgsIsHelpError

from calibration.atomic_files import PREFIX
from glyphpress.registry import to_blame
from targets.host.cache import crowded_disk, full_disk
from toolchain.core.errors import BUG, StageError, exit_code
from toolchain.core.interrupt import interrupted
from toolchain.core.packages import missing

_ADVICE: tuple[tuple[type[OSError], str], ...] = (
    (FileNotFoundError, "check the path"),
    (PermissionError, "give a path that you may read and write"),
    (FileExistsError, "give a path whose parents are folders"),
    (IsADirectoryError, "give a file, not a folder"),
    (NotADirectoryError, "give a path whose parents are folders"),
    (OSError, "free some space, or give another path"),
)


def end(error: BaseException) -> int:
    """Print on stderr what went wrong, and return the exit code; only a bug keeps its traceback."""
    if isinstance(error, NoArgsIsHelpError):  # its help is on stdout already
        return error.exit_code
    error = _translated(error)
    code = _code(error)
    if code == BUG:
        traceback.print_exception(error)
        plugin = to_blame(error)
        whose = f"this is a bug in the {plugin}, or in glyphpress below it" if plugin else "this is a bug"
        click.echo(f"glyphpress: {whose}; report it with the lines above and `glyphpress version`", err=True)
    else:
        message = " ".join(_message(error).split())
        if code == exit_code(StageError()) and not isinstance(error, OSError) and (crowded := crowded_disk(message)):
            message = f"{message}; {crowded}"
        click.echo(f"glyphpress: {message}", err=True)
    return code


def _code(error: BaseException) -> int:
    if isinstance(error, click.ClickException):
        return error.exit_code
    return exit_code(KeyboardInterrupt() if isinstance(error, click.Abort) else error)


def _translated(error: BaseException) -> BaseException:
    """Return the cause that a library hid: an interruption during an import, a package or memory that is missing.

    An exit of a library becomes a StageError: its code 0 would say that the work is done, and 1 that a gate failed.
    """
    _, allocator, reason = str(error).partition("DefaultCPUAllocator: ")
    if allocator and isinstance(error, RuntimeError):
        return MemoryError(reason)
    if isinstance(error, SystemExit):
        return StageError(
            "the model's own code, or a library, called sys.exit before the work was done; remove that call"
        )
    if interrupted() and _code(error) == BUG:
        return KeyboardInterrupt("interrupted")
    return missing(error) or error


def _temporary(path: object) -> bool:
    """Return whether a file that could not be written is a temporary one: without a name, or in `scratch`."""
    return not isinstance(path, str | bytes) or PREFIX in os.fsdecode(path)


def _message(error: BaseException) -> str:
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "glyphpress"
        problem = error.format_message().rstrip(".")
        return f"{problem}{' See' if problem.endswith('?') else '; see'} `{command} --help`"
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, OSError) and error.strerror:
        # Of two files the second is the one that was written.
        path = error.filename2 or error.filename
        full = full_disk(message=error.strerror) if error.errno in {errno.ENOSPC, errno.EDQUOT} else ""
        if full and _temporary(path):
            return f"{error.strerror}; {full}"
        advice = next(text for family, text in _ADVICE if isinstance(error, family))
        return f"{f'{path}: ' if path else ''}{error.strerror}; {advice}"
    if isinstance(error, MemoryError):
        return f"not enough memory{f' ({error})' if str(error) else ''}; use a smaller batch, or free some memory"
    return str(error) or "interrupted"

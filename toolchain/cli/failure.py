"""How the program ends when it cannot go on: one line and the exit code of the error's family, or a bug's traceback."""

from __future__ import annotations

import errno
import os
import traceback

import rich_click as click
from click.exceptions import NoArgsIsHelpError

from calibration.atomic_files import PREFIX
from targets.host.cache import crowded_disk, full_disk
from toolchain.core.errors import BUG, StageError, exit_code
from toolchain.core.interrupt import interrupted

_ADVICE: tuple[tuple[type[OSError], str], ...] = (
    (FileNotFoundError, "check the path"),
    (PermissionError, "name a place that you may read and write"),
    (FileExistsError, "name a place whose parents are folders"),
    (IsADirectoryError, "name a file, not a folder"),
    (NotADirectoryError, "name a place whose parents are folders"),
    (OSError, "free some space, or name another place"),
)


def end(error: BaseException) -> int:
    """Say on stderr what went wrong and return the exit code; only a bug keeps its traceback."""
    if isinstance(error, NoArgsIsHelpError):
        error.show()
        return error.exit_code
    error = _seen(error)
    code = _code(error)
    if code == BUG:
        traceback.print_exception(error)
        click.echo("glyphpress: this is a bug; report it with the lines above and `glyphpress version`", err=True)
    else:
        said = " ".join(_told(error).split())
        if code == exit_code(StageError()) and not isinstance(error, OSError) and (crowded := crowded_disk(said)):
            said = f"{said}; {crowded}"
        click.echo(f"glyphpress: {said}", err=True)
    return code


def _code(error: BaseException) -> int:
    if isinstance(error, click.ClickException):
        return error.exit_code
    return exit_code(KeyboardInterrupt() if isinstance(error, click.Abort) else error)


def _seen(error: BaseException) -> BaseException:
    """Return what a library made another error of: an interruption (in an import), or memory that is not there.

    Of an exit that is not ours, 0 would say that the work is done, and 1 that a gate failed.
    """
    _, torchs, reason = str(error).partition("DefaultCPUAllocator: ")
    if torchs and isinstance(error, RuntimeError):
        return MemoryError(reason)
    if isinstance(error, SystemExit):
        return StageError(
            "the model's own code, or a library, called sys.exit before the work was done; remove that call"
        )
    return KeyboardInterrupt("interrupted") if interrupted() and _code(error) == BUG else error


def _temporary(named: object) -> bool:
    """Return whether what could not be written is no result: it has no name, or one in the folder of `scratch`."""
    return not isinstance(named, str | bytes) or PREFIX in os.fsdecode(named)


def _told(error: BaseException) -> str:
    if isinstance(error, click.UsageError):
        where = error.ctx.command_path if error.ctx else "glyphpress"
        said = error.format_message().rstrip(".")
        return f"{said}{' See' if said.endswith('?') else '; see'} `{where} --help`"
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, OSError) and error.strerror:
        # Of two files the second is the one that was written.
        named = error.filename2 or error.filename
        full = full_disk(message=error.strerror) if error.errno in {errno.ENOSPC, errno.EDQUOT} else ""
        if full and _temporary(named):
            return f"{error.strerror}; {full}"
        place = f"{named}: " if named else ""
        advice = next(words for family, words in _ADVICE if isinstance(error, family))
        return f"{place}{error.strerror}; {advice}"
    if isinstance(error, MemoryError):
        return f"not enough memory{f' ({error})' if str(error) else ''}; take a smaller batch, or free some memory"
    return str(error) or "interrupted"

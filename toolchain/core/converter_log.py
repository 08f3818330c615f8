"""Keep the output of converters in a log file, so that the screen shows only what a person needs."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import mkstemp

from platformdirs import user_cache_path

from toolchain.core.errors import StageError, exit_code
from toolchain.core.interrupt import held

_LOG = logging.getLogger(__name__)
KEPT = 20
"""Number of logs that stay in the cache."""
_BUFFER = 1 << 16
"""Size of a stream that holds one line, in bytes."""


@cache
def default_log() -> Path:
    """Return this run's log, for stages without a folder of their own; the oldest logs of other runs are removed.

    It lies in the user's cache, else in the temporary directory; where neither can be written it is /dev/null.
    """
    name = f"converters-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    # platformdirs raises RuntimeError where there is no home directory.
    with suppress(OSError, RuntimeError):
        folder = user_cache_path("glyphpress") / "log"
        folder.mkdir(parents=True, exist_ok=True)
        earlier = sorted(folder.glob("converters*.log"), key=lambda log: log.stat().st_mtime)
        for log in earlier[: 1 - KEPT]:
            log.unlink(missing_ok=True)
        (folder / name).touch()
        return folder / name
    with suppress(OSError):
        # TMPDIR itself: `tempfile` may work in a folder that is removed at the end of the run (`files.scratch`).
        descriptor, path = mkstemp(f"-{name}", "glyphpress-", os.environ.get("TMPDIR", "/tmp"))
        os.close(descriptor)
        return Path(path)
    return Path(os.devnull)


@contextmanager
def output_to_log(log: Path | None = None) -> Iterator[Path]:
    """Append everything printed to file descriptors 1 and 2 (by C++ too), warnings and logging to `log`.

    Yields the log's path. The streams are restored however the block ends, and Ctrl-C waits until then. The output is
    then logged at INFO (`glyphpress -v`). Raises StageError where a converter would end the program; where its C++ does
    so, the program ends with the exit code of that error.
    """
    path = log or default_log()
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    level = logging.root.manager.disable
    start = path.stat().st_size if path.exists() else 0
    ended = f"a converter ended the program; what it said is in {path}; take the other format or another scheme"
    with (
        held(lambda: _notice(saved[1])),
        path.open("ab") as sink,
        warnings.catch_warnings(),
        abrupt_end_reported(f"glyphpress: {ended}", saved[1]),
    ):
        warnings.simplefilter("ignore")
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
        # Handlers that third-party packages bound to the terminal before would still reach it.
        logging.disable(logging.WARNING)
        try:
            yield path
        except SystemExit as stop:
            raise StageError(ended) from stop
        finally:
            logging.disable(level)
            # Output that does not fit on the log's disk is lost.
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError):
                    stream.flush()
            for copy, number in zip(saved, (1, 2), strict=True):
                os.dup2(copy, number)
                os.close(copy)
            _repeat(path, start)


def _notice(stderr: int) -> None:
    with suppress(OSError):
        os.write(stderr, b"stopping after this step\n")


def _repeat(path: Path, start: int) -> None:
    if _LOG.isEnabledFor(logging.INFO):
        with path.open("rb") as log:
            log.seek(start)
            output = log.read().decode(errors="replace").strip()
        _LOG.info("%s", f"{path}:\n{output}" if output else f"{path}: no output")


class _CookieFunctions(ctypes.Structure):
    """`cookie_io_functions_t` of glibc."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("read", "write", "seek", "close")]


@contextmanager
def abrupt_end_reported(line: str, stderr: int) -> Iterator[None]:
    """Where C or C++ code calls exit or abort inside the block, print the line and exit with the code of a StageError.

    Its own exit(1) would look like a failed gate. Python cannot run at that point, since another thread may hold its
    lock. So glibc does it: on exit it flushes a stream that holds the line, then one whose write function is _exit.
    Without glibc nothing is changed.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        yield
        return
    libc.fdopen.restype = libc.fopencookie.restype = ctypes.c_void_p
    functions = _CookieFunctions(write=_address(libc._exit))
    code = ctypes.c_void_p(exit_code(StageError()))
    streams = [
        ctypes.c_void_p(libc.fopencookie(code, b"w", functions)),
        ctypes.c_void_p(libc.fdopen(os.dup(stderr), b"w")),
    ]
    owner, before = ctypes.create_string_buffer(1), ctypes.create_string_buffer(1024)
    for stream, text in zip(streams, ("end", f"{line}\n"), strict=True):
        libc.setvbuf(stream, None, 0, ctypes.c_size_t(_BUFFER))
        libc.fputs(os.fsencode(text)[: _BUFFER - 1], stream)
        # Handlers are called in reverse order of their registration.
        libc.__cxa_atexit(libc.fflush, stream, owner)
    libc.sigaction(signal.SIGABRT, None, before)
    libc.signal(signal.SIGABRT, libc.exit)
    try:
        yield
    finally:
        libc.sigaction(signal.SIGABRT, before, None)
        for stream in streams:
            libc.__fpurge(stream)
        # It calls the handlers, which now have nothing to flush, and removes them.
        libc.__cxa_finalize(owner)
        for stream in streams:
            libc.fclose(stream)


def _address(function: object) -> int | None:
    return ctypes.cast(function, ctypes.c_void_p).value  # type: ignore[arg-type]  # a function of a library is a pointer

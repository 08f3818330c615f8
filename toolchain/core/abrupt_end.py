"""What C++ code ends the program with, made an exit code of ours: its exit(1) would look like a failed gate."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from toolchain.core.errors import StageError, exit_code

_ROOM = 1 << 16


class _CookieFunctions(ctypes.Structure):
    """`cookie_io_functions_t` of glibc."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("read", "write", "seek", "close")]


@contextmanager
def reported(line: str, stderr: int) -> Iterator[None]:
    """Where C or C++ code calls exit or abort inside the block, write the line and end with the code of a stage error.

    Python cannot run then, since another thread may hold its lock. So glibc does it: on exit it flushes the stream that
    holds the line, then one whose write function is _exit. Elsewhere than on glibc nothing is changed.
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
        libc.setvbuf(stream, None, 0, ctypes.c_size_t(_ROOM))
        libc.fputs(os.fsencode(text)[: _ROOM - 1], stream)
        # What is registered last is called first.
        libc.__cxa_atexit(libc.fflush, stream, owner)
    libc.sigaction(signal.SIGABRT, None, before)
    libc.signal(signal.SIGABRT, libc.exit)
    try:
        yield
    finally:
        libc.sigaction(signal.SIGABRT, before, None)
        for stream in streams:
            libc.__fpurge(stream)
        # It calls what was registered, which now has nothing to flush, and forgets it.
        libc.__cxa_finalize(owner)
        for stream in streams:
            libc.fclose(stream)


def _address(function: object) -> int | None:
    return ctypes.cast(function, ctypes.c_void_p).value  # type: ignore[arg-type]  # a function of a library is a pointer

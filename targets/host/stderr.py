"""Silence for runtimes that write to file descriptors from C++, where Python's sys.stderr has no say."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Send what the process writes to descriptor 2 inside the block nowhere; put descriptor 2 back afterwards.

    The descriptor belongs to the whole process: keep the block as short as the opening of a session. Where there is
    no descriptor 2 (a daemon closed it) nothing is done.
    """
    with captured_output(2):
        yield


@contextmanager
def captured_output(*descriptors: int) -> Iterator[Callable[[], str]]:
    """Keep what the process writes to these descriptors inside the block; the call that it yields returns it so far."""
    with tempfile.TemporaryFile() as sink, ExitStack() as restored:
        for descriptor in descriptors:
            try:
                kept = os.dup(descriptor)
            except OSError:
                continue
            restored.callback(os.close, kept)
            restored.callback(os.dup2, kept, descriptor)
            os.dup2(sink.fileno(), descriptor)

        def said() -> str:
            # The position is shared with the descriptors: reading must not move it.
            return os.pread(sink.fileno(), os.fstat(sink.fileno()).st_size, 0).decode(errors="replace")

        yield said

"""Captures what C++ code writes to file descriptors, which Python's sys.stderr cannot redirect."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Discard what the process writes to descriptor 2 inside the block.

    The descriptor belongs to the whole process, so keep the block as short as the opening of a session. Where there is
    no descriptor 2 (a daemon closed it) nothing is done.
    """
    with captured_output(2):
        yield


@contextmanager
def captured_output(*descriptors: int) -> Iterator[Callable[[], str]]:
    """Capture what the process writes to these descriptors in the block; yields a function that returns it so far."""
    with tempfile.TemporaryFile() as sink, ExitStack() as restored:
        for descriptor in descriptors:
            try:
                original = os.dup(descriptor)
            except OSError:
                continue
            restored.callback(os.close, original)
            restored.callback(os.dup2, original, descriptor)
            os.dup2(sink.fileno(), descriptor)

        def captured() -> str:
            # The file position is shared with the descriptors, so reading must not move it.
            return os.pread(sink.fileno(), os.fstat(sink.fileno()).st_size, 0).decode(errors="replace")

        yield captured

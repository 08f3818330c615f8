"""Silence for runtimes that write to file descriptor 2 from C++, where Python's sys.stderr has no say."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Send what the process writes to descriptor 2 inside the block nowhere; put descriptor 2 back afterwards.

    The descriptor belongs to the whole process: keep the block as short as the opening of a session. Where there is
    no descriptor 2 (a daemon closed it) nothing is done.
    """
    try:
        kept = os.dup(2)
    except OSError:
        yield
        return
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)

"""A copy of a user's file for mapping its weights into memory: a mapped file that is cut short ends the process."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def private_copy(path: Path) -> Iterator[Path]:
    """Give a copy in the temporary folder that only this process can open; what was mapped of it stays there.

    A training may save over the file at any time. Where the disk has no room for the copy it is the file itself.
    """
    with tempfile.TemporaryFile() as stream:
        try:
            with path.open("rb") as source:
                shutil.copyfileobj(source, stream, 1 << 20)
            stream.flush()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            copied = path
        else:
            # It has no name of its own, so that nothing is left of it however the process ends.
            copied = Path(f"/proc/self/fd/{stream.fileno()}")
        yield copied

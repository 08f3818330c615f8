"""A full disk, said before the work where it can be known and clearly where it cannot."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from calibration.errors import DownloadFailed

_ADVICE = "free some or name another disk with --data-root"


def require_space(folder: Path, need: int) -> None:
    """Raise DownloadFailed when `folder`'s disk has less than `need` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < need:
        raise DownloadFailed(f"{folder} has {free / 1e6:,.0f} MB free and {need / 1e6:,.0f} MB are needed; {_ADVICE}")


@contextmanager
def full_disk_is_said(path: Path) -> Iterator[None]:
    """Turn an OSError for want of space into DownloadFailed; every other one passes."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise
        raise DownloadFailed(f"the disk is full at {path}; {_ADVICE}, what came so far is kept") from error

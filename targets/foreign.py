"""What other people's libraries raise over a damaged file, said in one line of ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_OURS = ("calibration", "targets", "toolchain", "click", "rich_click")


@contextmanager
def translated(said: Callable[[str], Exception]) -> Iterator[None]:
    """Raise what a library raises in the block as one of our errors, made from its reason by `said`.

    For blocks that hand a user's file to a library, or walk what it made of the file: damage leads such code anywhere,
    so any exception can come out. Our own errors pass, and so do those of the system (no such file, full disk), which
    have lines of their own.
    """
    try:
        yield
    except Exception as error:
        if of_the_system(error) or type(error).__module__.partition(".")[0] in _OURS:
            raise
        raise said(first_line(error)) from error


def of_the_system(error: BaseException) -> bool:
    """Return whether the system raised an error (no such file, full disk), which says nothing of the file's content."""
    return isinstance(error, OSError) and error.errno is not None


def first_line(error: BaseException) -> str:
    """Return an error's type and the first line of its message, short enough for one line of ours."""
    lines = [line.strip() for line in _COLOUR.sub("", str(error)).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__

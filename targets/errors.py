"""Everything that can go wrong where an artifact runs.

TargetError
├── UnknownTarget       no such target name (usage)
├── TargetUnavailable   the target, or an optional package it needs, is not here: reason and fix
├── ArtifactError       a file that is no artifact, or whose sidecar does not belong to it
└── RunFailed           the runtime refused the file or answered with NaN, a wrong shape or a wrong type
    ├── Misplaced       a node would run elsewhere than on the device that was asked for; says which
    └── ConnectionLost  the place that ran the artifact went away in the middle; says how to go on
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_OURS = ("calibration", "targets", "toolchain", "click", "rich_click")
MOST = 3
"""A longer list of names hides the one that was meant."""


class TargetError(Exception):
    """Root of the errors of `targets`; the message is one line that ends with what to do."""


class UnknownTarget(TargetError):
    """A target name that is not in the catalog."""


class TargetUnavailable(TargetError):
    """The target cannot run here; carries the reason and the fix."""

    def __init__(self, reason: str, fix: str = "") -> None:
        """Take both, or one line that says both."""
        super().__init__("; ".join(filter(None, (reason, fix))))
        self.reason, self.fix = reason, fix


class ArtifactError(TargetError):
    """A file that cannot be read as an artifact, or a sidecar of another file."""


class RunFailed(TargetError):
    """The runtime could not load or run the artifact, or its answer is unusable."""


class Misplaced(RunFailed):
    """At least one node would run on another device than the one asked for."""


class ConnectionLost(RunFailed):
    """The link to the place where the artifact ran broke; nothing is left running there. reason: why, alone."""

    def __init__(self, message: str, reason: str = "") -> None:
        """Take the whole line, and the part of it that says why."""
        super().__init__(message)
        self.reason = reason or message


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


def in_one_line(error: BaseException) -> str:
    """Return the whole of an error's message as one line, cut off where it says too much for one of ours."""
    return " ".join(str(error).split())[:300]


def nearest(word: str, names: Iterable[str], otherwise: str, *, cutoff: float = 0.6) -> str:
    """Return the advice for an unknown name: the near ones, else `otherwise`, which says where all are.

    At most three names are given; as few as that are given whether they are near or not.
    """

    import difflib

    known = list(names)
    near = difflib.get_close_matches(word, known, n=MOST, cutoff=cutoff) or (known if len(known) <= MOST else [])
    return f"did you mean {', '.join(near)}?" if near else otherwise

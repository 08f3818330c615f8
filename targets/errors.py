"""The errors of targets and artifacts.

TargetError
├── UnknownTarget       no such target name (usage)
├── TargetUnavailable   the target, or an optional package it needs, is missing: reason and fix
├── ArtifactError       a file that is no artifact, or a sidecar that belongs to another file
└── RunFailed           the runtime refused the file, or its answer has NaN, a wrong shape or a wrong type
    ├── Misplaced       a node would not run on the requested device; names the nodes
    └── ConnectionLost  the connection to a board or another process broke; says how to go on
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_OURS = ("calibration", "targets", "toolchain", "click", "rich_click")
MOST_SUGGESTIONS = 3
"""A longer list would hide the name that was meant."""


class TargetError(Exception):
    """Root of the errors of `targets`; the message is one line that ends with what to do."""


class UnknownTarget(TargetError):
    """A target name that is not in the catalog."""


class TargetUnavailable(TargetError):
    """The target cannot run here; carries the reason and the fix."""

    def __init__(self, reason: str, fix: str = "") -> None:
        """Take reason and fix, or one line with both."""
        super().__init__("; ".join(filter(None, (reason, fix))))
        self.reason, self.fix = reason, fix


class ArtifactError(TargetError):
    """A file that cannot be read as an artifact, or a sidecar that belongs to another file."""


class RunFailed(TargetError):
    """The runtime could not load or run the artifact, or its answer cannot be used."""


class Misplaced(RunFailed):
    """At least one node would run on another device than the requested one."""


class ConnectionLost(RunFailed):
    """The connection to a board or another process broke, which ends the agent there. reason: the cause alone."""

    def __init__(self, message: str, reason: str = "") -> None:
        """Take the whole message, and the part of it that gives the cause."""
        super().__init__(message)
        self.reason = reason or message


@contextmanager
def translated(error_for: Callable[[str], Exception]) -> Iterator[None]:
    """Raise the exceptions of a library in the block as our own errors, which `error_for` makes from the reason.

    For blocks that give a user's file to a library, or read what the library made of it: a damaged file can cause any
    exception there. Our own errors pass unchanged, and so do those of the system (no such file, full disk), which have
    messages of their own.
    """
    try:
        yield
    except Exception as error:
        if of_the_system(error) or type(error).__module__.partition(".")[0] in _OURS:
            raise
        raise error_for(first_line(error)) from error


@contextmanager
def runtime_errors(
    problem: str, advice: str = "export it again", kinds: type[Exception] | tuple[type[Exception], ...] = Exception
) -> Iterator[None]:
    """Raise what a runtime raises in the block, of these kinds, as RunFailed: `PROBLEM (its message); ADVICE`.

    Our own errors pass unchanged.
    """
    try:
        yield
    except TargetError:
        raise
    except kinds as error:
        raise RunFailed(f"{problem} ({in_one_line(error)}); {advice}") from error


def of_the_system(error: BaseException) -> bool:
    """Return whether the system raised an error (no such file, full disk): the file's content is not to blame."""
    return isinstance(error, OSError) and error.errno is not None


def first_line(error: BaseException) -> str:
    """Return an error's type and the first line of its message, at most 160 characters of it."""
    lines = [line.strip() for line in _COLOUR.sub("", str(error)).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__


_PYTHONS_OWN = re.compile(
    r"object|indices|unhashable|not supported|not iterable|argument|literal for int|to unpack|NoneType"
)
"""Stands in messages of Python about values of another type, which say nothing to who wrote the file."""


def unknown_key(key: str) -> str:
    """Return what is wrong with a key that a file of ours has and that this version does not know."""
    return f"unknown key '{key}'; if a later glyphpress wrote it, update this one"


def plain_reason(error: BaseException) -> str:
    """Return why the values of a file cannot be read, without Python's words: which key is missing or not known."""
    if isinstance(error, KeyError):
        return f"{error} is missing"
    text = in_one_line(error)
    if unknown := re.search(r"unexpected keyword argument '(\w+)'", text):
        return unknown_key(unknown[1])
    if missing := re.search(r"missing \d+ required (?:positional|keyword-only) arguments?: (.*)", text):
        return f"{missing[1]} is missing"
    is_pythons_own = isinstance(error, TypeError | AttributeError | ValueError) and _PYTHONS_OWN.search(text)
    return "a value has another type than it should" if is_pythons_own else text


def in_one_line(error: BaseException) -> str:
    """Return an error's message as one line, at most 300 characters of it."""
    return " ".join(str(error).split())[:300]


def nearest(word: str, names: Iterable[str], otherwise: str, *, cutoff: float = 0.6) -> str:
    """Return the advice for an unknown name: up to three similar names, else `otherwise`, which gives another advice.

    If there are at most three names, all are given.
    """
    import difflib

    known = list(names)
    near = difflib.get_close_matches(word, known, n=MOST_SUGGESTIONS, cutoff=cutoff) or (
        known if len(known) <= MOST_SUGGESTIONS else []
    )
    return f"did you mean {', '.join(near)}?" if near else otherwise

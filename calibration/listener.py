"""Who hears what is found in data files, and how far reading them is: nobody, until a program says who."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class Listener:
    """Hears what is found in data files and how far reading them is: `say(line)` and `progress(label, done, total)`."""

    say: Callable[[str], None] = lambda _line: None
    progress: Callable[[str, int, int], None] = lambda _label, _done, _total: None


_NOBODY = Listener()
_LISTENER: ContextVar[Listener] = ContextVar("listener", default=_NOBODY)


def listener() -> Listener:
    """Return who listens; nobody by default."""
    return _LISTENER.get()


@contextmanager
def listening(hears: Listener) -> Iterator[None]:
    """Let `hears` listen within the block."""
    token = _LISTENER.set(hears)
    try:
        yield
    finally:
        _LISTENER.reset(token)

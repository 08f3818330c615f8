"""What a data file stores, before anything is known about how its images stand and what its labels mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from calibration.dataset import Images, Labels


@dataclass(frozen=True)
class Stored:
    """Images and labels as a file stores them.

    images: uint8 [N, H, W], H equal to W. labels: int64 [N], in the file's own numbering. classes: the name of each
    label where the file says them, else empty. place: says where in the file an image stands, such as `line 12`.
    """

    images: Images
    labels: Labels
    place: Callable[[int], str]
    classes: tuple[str, ...] = ()


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

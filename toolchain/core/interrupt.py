"""Ctrl-C, SIGTERM and SIGHUP, which third-party code would lose or turn into a crash."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

_RESEND_SECONDS = 0.05
"""Time until a lost interruption is sent again."""
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_received: list[int] = []
"""Signals since the last `heard` began."""


def interrupted() -> bool:
    """Return whether a signal asked the program to end since the last `heard` began."""
    return bool(_received)


@contextmanager
def held(notice: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold SIGINT, SIGTERM and SIGHUP back until the end of the block; the first of them calls `notice`.

    C++ code that calls back into Python, as MLIR's passes do, aborts the process at a KeyboardInterrupt.
    """
    if not _main_thread():
        # Signals go to the main thread only.
        yield
        return
    received: list[int] = []

    def hold(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        if len(received) == 1:
            notice()

    handlers = _handlers(*_ENDING)
    for number, handler in handlers.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, hold)
    try:
        yield
    finally:
        _restore(handlers)
        if received:
            signal.raise_signal(received[0])


@contextmanager
def heard() -> Iterator[None]:
    """Treat SIGTERM and SIGHUP like Ctrl-C inside the block; ignored signals (`nohup`) stay ignored.

    Python drops an exception that is raised in a callback of its garbage collector, and jax registers such a callback;
    the interruption is then sent again.
    """
    if not _main_thread():
        yield
        return
    _received.clear()
    handlers, hook = _handlers(*_ENDING, signal.SIGALRM), sys.unraisablehook

    def unraisable(lost: Any) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, _RESEND_SECONDS)
        else:
            hook(lost)

    for number, handler in handlers.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _stop)
    sys.unraisablehook = unraisable
    try:
        yield
    finally:
        sys.unraisablehook = hook
        signal.setitimer(signal.ITIMER_REAL, 0)
        _restore(handlers)


def _main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _handlers(*numbers: signal.Signals) -> dict[signal.Signals, Any]:
    return {number: signal.getsignal(number) for number in numbers}


def _restore(handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        # None is a handler that was not set from Python, which cannot be restored.
        signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    _received.append(number)
    raise KeyboardInterrupt("interrupted" if number in {signal.SIGINT, signal.SIGALRM} else "terminated")

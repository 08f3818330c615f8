"""Ctrl-C, SIGTERM and SIGHUP, where third-party code would turn them into a crash or lose them."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

_AGAIN = 0.05
"""Seconds until a lost interruption is sent again."""
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_came: list[int] = []


def interrupted() -> bool:
    """Return whether a signal asked the program to end since the last `heard` began."""
    return bool(_came)


@contextmanager
def held(notice: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP wait for the end of the block; the first of them calls `notice`.

    C++ code that calls Python back, as MLIR's passes do, aborts the process when KeyboardInterrupt is raised there.
    """
    if not _main_thread():
        # Signals go to the main thread only.
        yield
        return
    came: list[int] = []

    def hold(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        if len(came) == 1:
            notice()

    handlers = _handlers(*_ENDING)
    for number, handler in handlers.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, hold)
    try:
        yield
    finally:
        _restore(handlers)
        if came:
            signal.raise_signal(came[0])


@contextmanager
def heard() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does, and lose none; what is ignored (`nohup`) stays ignored.

    Python drops an exception that is raised in a callback of its garbage collector, where jax hangs one; then the
    interruption is sent again.
    """
    if not _main_thread():
        yield
        return
    _came.clear()
    handlers, hook = _handlers(*_ENDING, signal.SIGALRM), sys.unraisablehook

    def unraisable(lost: Any) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, _AGAIN)
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
        # None is a handler that was not set from Python, which cannot be put back.
        signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    _came.append(number)
    raise KeyboardInterrupt("interrupted" if number in {signal.SIGINT, signal.SIGALRM} else "terminated")

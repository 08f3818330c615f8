"""Ctrl-C and SIGTERM, where third-party code would turn them into a crash or lose them."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

_AGAIN = 0.05
"""Seconds until a lost interruption is sent again."""


@contextmanager
def held() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait for the end of the block.

    C++ code that calls Python back, as MLIR's passes do, aborts the process when KeyboardInterrupt is raised there.
    """
    if threading.current_thread() is not threading.main_thread():
        # Signals go to the main thread only.
        yield
        return
    came: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in handlers:
        signal.signal(number, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            # None is a handler that was not set from Python, which cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if came:
            signal.raise_signal(came[0])


@contextmanager
def heard() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, and lose neither.

    Python drops an exception that is raised in a callback of its garbage collector, where jax hangs one; then the
    interruption is sent again.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    terminate, alarm, hook = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGALRM), sys.unraisablehook

    def unraisable(lost: Any) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, _AGAIN)
        else:
            hook(lost)

    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGALRM, _stop)
    sys.unraisablehook = unraisable
    try:
        yield
    finally:
        sys.unraisablehook = hook
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGTERM, terminate)
        signal.signal(signal.SIGALRM, alarm)


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt("terminated" if number == signal.SIGTERM else "interrupted")

"""Ctrl-C, SIGTERM and SIGHUP, which third-party code would lose or turn into a crash."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

_RESEND_SECONDS = 0.05
"""Time until a lost interruption is sent again."""
GRACE_SECONDS = 8.0
"""Time in which Python must get to see a signal; a runtime whose call does not return would keep it away for ever.

Below the ten seconds after which containers are killed, and more than one inference of a large model takes.
"""
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_received: list[int] = []
"""Signals since the last `heard` began."""
_seen = threading.Event()
"""Set when a Python handler sees a signal."""
_END = b"\0"
"""What ends the thread that watches signals; no signal has this number."""


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
        _seen.set()
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

    Where a call of a runtime does not return within GRACE_SECONDS of the signal, as of a model with an endless loop,
    the process ends with 130. What was not finished then has no name yet, as after a kill.

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
        with _watched():
            yield
    finally:
        sys.unraisablehook = hook
        signal.setitimer(signal.ITIMER_REAL, 0)
        _restore(handlers)


@contextmanager
def _watched() -> Iterator[None]:
    """End the process where no Python handler sees a signal in time: those run between two calls of the main thread.

    The interpreter writes the number of each signal to a pipe at once, which a thread reads while a runtime computes.
    """
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    _seen.clear()
    watcher = threading.Thread(target=_watch, args=(reading,), daemon=True, name="signals")
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        # Not by closing it: a process that was forked meanwhile may have it open too.
        os.write(writing, _END)
        watcher.join()
        os.close(writing)
        os.close(reading)


def _watch(reading: int) -> None:
    """Read the numbers of signals from a pipe until _END comes."""
    received = b""
    while _END not in received:
        select.select([reading], [], [])
        received = os.read(reading, 512)
        if not set(received) & set(_ENDING):
            continue
        if not _seen.wait(GRACE_SECONDS):
            os.write(2, b"\nglyphpress: interrupted inside a call of a runtime that did not return\n")
            os._exit(130)
        _seen.clear()
        # One call of the handler may have been for several signals.
        with suppress(BlockingIOError):
            received += os.read(reading, 512)


def _forget_pipe() -> None:
    # Signals of a forked process are not those of this one.
    with suppress(ValueError):  # not the main thread of the main interpreter
        signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_forget_pipe)


def _main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _handlers(*numbers: signal.Signals) -> dict[signal.Signals, Any]:
    return {number: signal.getsignal(number) for number in numbers}


def _restore(handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        # None is a handler that was not set from Python, which cannot be restored.
        signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    _seen.set()
    _received.append(number)
    raise KeyboardInterrupt("interrupted" if number in {signal.SIGINT, signal.SIGALRM} else "terminated")

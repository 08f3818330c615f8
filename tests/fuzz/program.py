"""The program in this process, as `toolchain.cli.main` runs it, without the exit."""

from __future__ import annotations

import sys
from collections.abc import Callable

from toolchain.cli import failure
from toolchain.cli.main import glyphpress


def run(*words: object) -> int:
    """Run a command and return its exit code."""
    # -q: progress is no part of what is refused.
    return guarded(lambda: glyphpress([*map(str, words), "-q"], prog_name="glyphpress", standalone_mode=False))


def guarded(command: Callable[[], object]) -> int:
    """Return the exit code that main gives to what a command does."""
    try:
        code = command()
        sys.stdout.flush()
    except SystemExit as stop:
        code = stop.code
    except BaseException as error:  # noqa: BLE001 (as main does)
        code = failure.end(error)
    return code if isinstance(code, int) else 0

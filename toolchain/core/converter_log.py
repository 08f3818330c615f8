"""Converters talk a lot; what they say goes to a log file, so that the screen keeps what a person needs."""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import mkstemp

from platformdirs import user_cache_path

from toolchain.core.abrupt_end import reported
from toolchain.core.errors import StageError
from toolchain.core.interrupt import held

_LOG = logging.getLogger(__name__)
KEPT = 20
"""Logs of the last runs."""


@cache
def default_log() -> Path:
    """Return this run's log, which is used where a stage has no folder of its own; the last ones of other runs stay.

    Without a home that can be written it is one in the temporary directory, and without that one nothing is kept.
    """
    name = f"converters-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    # platformdirs raises RuntimeError where there is no home.
    with suppress(OSError, RuntimeError):
        folder = user_cache_path("glyphpress") / "log"
        folder.mkdir(parents=True, exist_ok=True)
        earlier = sorted(folder.glob("converters*.log"), key=lambda log: log.stat().st_mtime)
        for log in earlier[: 1 - KEPT]:
            log.unlink(missing_ok=True)
        (folder / name).touch()
        return folder / name
    with suppress(OSError):
        # Not in the folder that `tempfile` may work in, since that goes at the end of the run.
        descriptor, path = mkstemp(f"-{name}", "glyphpress-", os.environ.get("TMPDIR", "/tmp"))
        os.close(descriptor)
        return Path(path)
    return Path(os.devnull)


@contextmanager
def output_to_log(log: Path | None = None) -> Iterator[Path]:
    """Send everything printed to file descriptors 1 and 2 (C++ included), warnings and logging to `log`.

    Appends; yields the log's path. The streams are given back on every way out, and Ctrl-C waits until then. What was
    said is then logged at INFO, for those who want to hear it (`glyphpress -v`). Raises StageError where a converter
    would end the program; where its C++ does so, the program ends with the exit code of that error.
    """
    path = log or default_log()
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    level = logging.root.manager.disable
    start = path.stat().st_size if path.exists() else 0
    ended = f"a converter ended the program; what it said is in {path}; take the other format or another scheme"
    with (
        held(lambda: _notice(saved[1])),
        path.open("ab") as sink,
        warnings.catch_warnings(),
        reported(f"glyphpress: {ended}", saved[1]),
    ):
        warnings.simplefilter("ignore")
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
        # Handlers that third-party packages bound to the terminal before would still reach it.
        logging.disable(logging.WARNING)
        try:
            yield path
        except SystemExit as stop:
            raise StageError(ended) from stop
        finally:
            logging.disable(level)
            # What does not fit on the log's disk is lost.
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError):
                    stream.flush()
            for copy, number in zip(saved, (1, 2), strict=True):
                os.dup2(copy, number)
                os.close(copy)
            _repeat(path, start)


def _notice(stderr: int) -> None:
    with suppress(OSError):
        os.write(stderr, b"stopping after this step\n")


def _repeat(path: Path, start: int) -> None:
    if _LOG.isEnabledFor(logging.INFO):
        with path.open("rb") as kept:
            kept.seek(start)
            said = kept.read().decode(errors="replace").strip()
        _LOG.info("%s", f"{path}:\n{said}" if said else f"{path}: nothing was said")

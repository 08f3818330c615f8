"""Converters talk a lot; what they say goes to a log file, so that the screen keeps what a person needs."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_log_path

from toolchain.interrupt import held

_LOG = logging.getLogger(__name__)


def default_log() -> Path:
    """Return the log that is used where a stage has no folder of its own."""
    return user_log_path("glyphpress", ensure_exists=True) / "converters.log"


@contextmanager
def noise_to(log: Path | None = None) -> Iterator[Path]:
    """Send everything printed to file descriptors 1 and 2 (C++ included), warnings and logging to `log`.

    Appends; yields the log's path. The streams are given back on every way out, and Ctrl-C waits until then. What was
    said is then logged at INFO, for those who want to hear it (`glyphpress -v`).
    """
    path = log or default_log()
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    level = logging.root.manager.disable
    start = path.stat().st_size if path.exists() else 0
    with held(), path.open("ab") as sink, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
        # Handlers that third-party packages bound to the terminal before would still reach it.
        logging.disable(logging.WARNING)
        try:
            yield path
        finally:
            logging.disable(level)
            try:
                # Fails when the log's disk is full.
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                for copy, stream in zip(saved, (1, 2), strict=True):
                    os.dup2(copy, stream)
                    os.close(copy)
            _repeat(path, start)


def _repeat(path: Path, start: int) -> None:
    if _LOG.isEnabledFor(logging.INFO):
        with path.open("rb") as kept:
            kept.seek(start)
            said = kept.read().decode(errors="replace").strip()
        _LOG.info("%s", f"{path}:\n{said}" if said else f"{path}: nothing was said")

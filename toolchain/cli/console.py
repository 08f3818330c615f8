"""What a person sees: results on stdout, progress on stderr, or one JSON object and nothing else."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from toolchain.progress import Progress


def plain() -> bool:
    """Return whether output goes to a log rather than a terminal (no terminal, CI or NO_COLOR)."""
    return not sys.stderr.isatty() or bool(os.environ.get("CI") or os.environ.get("NO_COLOR"))


def emit(command: str, payload: dict[str, Any]) -> None:
    """Print the one JSON object of `--json`."""
    click.echo(json.dumps({"schema": f"glyphpress/{command}/1"} | payload, ensure_ascii=False, allow_nan=False))


def say(text: str) -> None:
    """Print a line of progress or advice on stderr."""
    click.echo(text, err=True)


def out() -> Console:
    """Return the console for results: colours only on a terminal, never a line broken by width in a log."""
    return Console(soft_wrap=not sys.stdout.isatty(), highlight=False)


@contextmanager
def progress() -> Iterator[Progress]:
    """Give a listener for stages: bars on a terminal, a line at the start and end of each label otherwise."""
    if plain():
        yield _lines()
        return
    with Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        tasks: dict[str, Any] = {}

        def listen(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = bar.add_task(label, total=total or None)
            bar.update(tasks[label], completed=done)

        yield listen


def _lines() -> Progress:
    seen: dict[str, int] = {}

    def listen(label: str, done: int, total: int) -> None:
        tenth = 10 * done // total if total else 0
        if seen.get(label) != tenth:
            seen[label] = tenth
            say(f"{label} {done}/{total}" if total else label)

    return listen

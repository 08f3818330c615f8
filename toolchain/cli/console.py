"""What a person sees: results on stdout, progress on stderr, or one JSON object and nothing else."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import rich_click as click

from targets.terminal_text import json_text, one_line
from toolchain.cli import verbosity
from toolchain.cli.help import no_colour
from toolchain.cli.streams import coloured
from toolchain.core.progress import Progress, silent

if TYPE_CHECKING:
    from rich.console import Console

    from toolchain.cli.bars import Bars

_shown: list[Bars] = []
"""The bars that are on the terminal now, at most one set of them."""


def plain() -> bool:
    """Return whether output goes to a log rather than a terminal (no terminal, CI, NO_COLOR or -v)."""
    return not sys.stderr.isatty() or no_colour() or verbosity.verbose()


def emit(command: str, payload: dict[str, Any]) -> None:
    """Print the one JSON object of `--json`; its schema is the command's, whatever is inside has one of its own."""
    schema = {"schema": f"glyphpress/{command}/1"}
    click.echo(json_text(schema | payload | schema))


def tell(text: str) -> None:
    """Print a line of results on stdout; a line break that a name brings along is escaped."""
    click.echo(one_line(text))


def say(text: str) -> None:
    """Print a line of progress or advice on stderr, above the bars if there are any; -q keeps it."""
    if verbosity.quiet():
        return
    if _shown:
        _shown[-1].print(one_line(text))
    else:
        click.echo(one_line(text), err=True)


def advise(lines: Iterable[str]) -> None:
    """Print what a user can do next, one a line, on stdout."""
    for number, line in enumerate(lines):
        tell(f"{'next' if number == 0 else '':8}{line}")


def out() -> Console:
    """Return the console for results: colours only on a terminal, never a line broken by width in a log."""
    from rich.console import Console

    wide = not sys.stdout.isatty()
    return Console(
        file=coloured(sys.stdout), soft_wrap=wide, highlight=False, color_system=None if no_colour() else "auto"
    )


def show(text: str) -> None:
    """Print a table of results that was made into text, with its colours."""
    coloured(sys.stdout).write(f"{text}\n")


def width() -> int | None:
    """Return the columns of the terminal that results go to; None where they go elsewhere."""
    from rich.console import Console

    return Console().width if sys.stdout.isatty() else None


@contextmanager
def progress() -> Iterator[Progress]:
    """Give a listener for stages: bars on a terminal, else a line at the start and end of each label; -q: nothing."""
    if verbosity.quiet():
        yield silent
    elif plain():
        yield _Lines()
    else:
        from toolchain.cli.bars import bars

        with bars() as shown:
            _shown.append(shown)
            try:
                yield shown
            finally:
                _shown.remove(shown)


class _Lines:
    """The first and the last line of each label, and between them one in a while, so that a log stays short."""

    SECONDS = 10.0

    def __init__(self) -> None:
        self.spoke, self.running = time.monotonic(), dict[str, tuple[int, int]]()

    def __call__(self, label: str, done: int, total: int) -> None:
        before, now = self.running.get(label), time.monotonic()
        self.running[label] = done, total
        if before == (done, total):
            return
        starts, ends = before is None or done < before[0], bool(total) and done >= total
        if starts or ends or now - self.spoke >= self.SECONDS:
            self.spoke = now
            count = f" {done:,}/{total:,}" if total else f" {done:,}" if done else ""
            click.echo(one_line(f"{label}{count}"), err=True)

"""What a person sees: results on stdout, progress on stderr, or one JSON object and nothing else."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import rich_click as click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from targets.escapes import json_text, one_line
from toolchain.cli import verbosity
from toolchain.cli.streams import Lossy
from toolchain.progress import Progress, silent
from toolchain.visible import ours

_shown: list[Bar] = []
"""The bars that are on the terminal now, at most one set of them."""


def plain() -> bool:
    """Return whether output goes to a log rather than a terminal (no terminal, CI, NO_COLOR or -v)."""
    return not sys.stderr.isatty() or _no_colour() or verbosity.verbose()


def _no_colour() -> bool:
    return bool(os.environ.get("CI") or os.environ.get("NO_COLOR"))


class _Help(click.RichHelpFormatter):
    """Help whose colours are the program's own."""

    def getvalue(self) -> str:
        return ours(super().getvalue())


def style_help() -> None:
    """Let help have colours on a terminal, and none under CI, where rich-click would force them (GITHUB_ACTIONS)."""
    click.RichContext.formatter_class = _Help
    if _no_colour():
        click.rich_click.COLOR_SYSTEM = None
        click.rich_click.FORCE_TERMINAL = False


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
        _shown[-1].console.print(one_line(text), markup=False, highlight=False)
    else:
        click.echo(one_line(text), err=True)


def advise(lines: Iterable[str]) -> None:
    """Print what a user can do next, one a line, on stdout."""
    for number, line in enumerate(lines):
        tell(f"{'next' if number == 0 else '':8}{line}")


class _Results(Console):
    """A console whose colours are the program's own."""

    def print(self, *objects: Any, **settings: Any) -> None:
        with self.capture() as made:
            super().print(*objects, **settings)
        self.file.write(ours(made.get()))


def out() -> Console:
    """Return the console for results: colours only on a terminal, never a line broken by width in a log."""
    wide = not sys.stdout.isatty()
    return _Results(soft_wrap=wide, highlight=False, color_system=None if _no_colour() else "auto")


def width() -> int | None:
    """Return the columns of the terminal that results go to; None where they go elsewhere."""
    return Console().width if sys.stdout.isatty() else None


@contextmanager
def progress() -> Iterator[Progress]:
    """Give a listener for stages: bars on a terminal, else a line at the start and end of each label; -q: nothing."""
    if verbosity.quiet():
        yield silent
    elif plain():
        yield _Lines()
    else:
        # Stages send file descriptors 1 and 2 to a log while converters run; the bars keep a way to the terminal.
        with Lossy(os.dup(2), "w").text(raw=True) as terminal, _bars(terminal) as bar:
            _shown.append(bar)
            try:
                yield _Bars(bar)
            finally:
                _shown.remove(bar)


def _bars(terminal: Any) -> Bar:
    return Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        _Count(),
        TimeRemainingColumn(),
        console=Console(file=terminal),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


class _Count(MofNCompleteColumn):
    """3/10, or nothing where the total is unknown."""

    def render(self, task: Task) -> Text:
        return super().render(task) if task.total else Text()


class _Bars:
    """A bar for each label until it is done; one without a total pulses until the next label starts."""

    def __init__(self, bar: Bar) -> None:
        self.bar, self.running = bar, dict[str, TaskID]()

    def __call__(self, label: str, done: int, total: int) -> None:
        if label not in self.running:
            self._end(*(old for old, task in self.running.items() if self.bar.tasks[task].total is None))
            self.running[label] = self.bar.add_task(one_line(label), total=total or None)
        self.bar.update(self.running[label], completed=done, total=total or None)
        if total and done >= total:
            self._end(label)

    def _end(self, *labels: str) -> None:
        for label in labels:
            self.bar.update(self.running.pop(label), visible=False)


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

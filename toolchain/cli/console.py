"""What a person sees: results on stdout, progress on stderr, or one JSON object and nothing else; `-q` and `-v`.

Results end the progress bars, so that no bar is left on the terminal between them.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import rich_click as click

from targets.host.text import json_text, one_line
from toolchain.cli.streams import Lossy, coloured
from toolchain.core.context import Progress, silent

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as BarDisplay
    from rich.progress import TaskID

    from toolchain.report.tables import Columns

_VERBOSITY = f"{__name__}.verbosity"
_PIPED = 100
"""Columns of a table that is cut to a width, in a log or a pipe: what fits a pull request and a usual window."""
_bars: list[Bars] = []
"""The progress bars of the command that runs, at most one set of them."""


def no_colour() -> bool:
    """Return whether the environment asks for plain output."""
    return bool(os.environ.get("CI") or os.environ.get("NO_COLOR"))


def plain() -> bool:
    """Return whether progress is printed as plain lines (no terminal, CI, NO_COLOR or -v)."""
    return not sys.stderr.isatty() or no_colour() or verbose()


def emit(command: str, payload: dict[str, Any]) -> None:
    """Print the one JSON object of `--json`; its `schema` is that of the command, whatever the payload holds."""
    schema = {"schema": f"glyphpress/{command}/1"}
    write(json_text(schema | payload | schema))


def tell(text: str) -> None:
    """Print a line of results on stdout; a line break inside it, such as in a file name, is escaped."""
    write(one_line(text))


def write(text: str, *, newline: bool = True) -> None:
    """Print results of several lines on stdout as they are."""
    end_bars()
    click.echo(text, nl=newline)


def say(text: str) -> None:
    """Print a line of progress or advice on stderr, above the bars if there are any; not with -q."""
    if not quiet():
        warn(text)


def warn(text: str) -> None:
    """Print on stderr what makes results doubtful, above the bars if there are any; -q does not hide it."""
    if _bars and _bars[-1].shown:
        _bars[-1].print(one_line(text))
    else:
        click.echo(one_line(text), err=True)


def advise(lines: Iterable[str]) -> None:
    """Print what a user can do next on stdout, one step per line."""
    for number, line in enumerate(lines):
        tell(f"{'next' if number == 0 else '':8}{line}")


def out() -> Console:
    """Return the console for results; colours on a terminal only, and no lines folded elsewhere."""
    from rich.console import Console

    end_bars()
    wide = not sys.stdout.isatty()
    return Console(
        file=coloured(sys.stdout), soft_wrap=wide, highlight=False, color_system=None if no_colour() else "auto"
    )


def show(text: str) -> None:
    """Print a rendered table of results, with its colours."""
    end_bars()
    coloured(sys.stdout).write(f"{text}\n")


def show_columns(columns: Columns, *, whole: bool = False) -> None:
    """Print a table of results, in a log or a pipe with at most 100 characters a line; whole: with all it has."""
    show(columns.text(width=width() or (None if whole else _PIPED), colour=not plain()))


def command_line() -> tuple[str, ...]:
    """Return the words of the command that runs, as reports store and show it."""
    return ("glyphpress", *sys.argv[1:])


def width() -> int | None:
    """Return the width of the terminal that results go to, None if stdout is no terminal."""
    from rich.console import Console

    return Console().width if sys.stdout.isatty() else None


@contextmanager
def progress() -> Iterator[Progress]:
    """Yield a progress listener: bars on a terminal, else a line at the start and end of each label; with -q silent."""
    if quiet():
        yield silent
    elif plain():
        yield _Lines()
    else:
        bars = Bars()
        _bars.append(bars)
        try:
            yield bars
        finally:
            _bars.remove(bars)
            bars.end()


def end_bars() -> None:
    """Take the progress bars off the terminal."""
    for bars in _bars:
        bars.end()


class Bars:
    """A bar for each label until it is done; one without a total pulses until the next label starts.

    They are shown from the first label on. They have a file descriptor of their own, since a stage may send descriptors
    1 and 2 to a log meanwhile.
    """

    def __init__(self) -> None:
        """Show nothing yet."""
        self.shown: BarDisplay | None = None
        self._terminal: TextIO | None = None
        self._running: dict[str, TaskID] = {}

    def __call__(self, label: str, done: int, total: int) -> None:
        """Move the bar of a label; `toolchain.core.context.Progress`."""
        display = self.shown or self._start()
        if label not in self._running:
            self._remove(*(old for old, task in self._running.items() if display.tasks[task].total is None))
            self._running[label] = display.add_task(one_line(label), total=total or None, count="")
        count = f"{done:{len(str(total))}}/{total}" if total else ""
        display.update(self._running[label], completed=done, total=total or None, count=count)
        if total and done >= total:
            self._remove(label)

    def print(self, line: str) -> None:
        """Print a line above the bars."""
        assert self.shown, "there are bars"
        self.shown.console.print(line, markup=False, highlight=False)

    def end(self) -> None:
        """Take the bars off the terminal; the next label shows them again."""
        if self.shown and self._terminal:
            self.shown.stop()
            self._terminal.close()
        self.shown, self._terminal = None, None
        self._running.clear()

    def _start(self) -> BarDisplay:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as BarDisplay

        self._terminal = Lossy(os.dup(2), "w").text(raw=True)
        columns = (
            *(TextColumn("{task.description}"), BarColumn()),
            *(TextColumn("{task.fields[count]}", style="progress.download", markup=False), TimeRemainingColumn()),
        )
        self.shown = BarDisplay(
            *columns,
            console=Console(file=self._terminal),
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self.shown.start()
        return self.shown

    def _remove(self, *labels: str) -> None:
        assert self.shown, "there are bars"
        for label in labels:
            self.shown.update(self._running.pop(label), visible=False)


class _Lines:
    """Prints a line at the start and the end of each label, and at most every 10 seconds between: logs stay short."""

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


def quiet() -> bool:
    """Return whether `-q` was given to the command that runs."""
    return _verbosity() == "quiet"


def verbose() -> bool:
    """Return whether `-v` was given to the command that runs."""
    return _verbosity() == "verbose"


def accept(command: click.Command) -> click.Command:
    """Add both options to a command and to every command under it; adding them twice does nothing.

    A group takes them only where it does something by itself.
    """
    if isinstance(command, click.Group):
        for subcommand in command.commands.values():
            accept(subcommand)
        if not command.invoke_without_command:
            return command
    if all(param.name != "quiet" for param in command.params):
        verbosity_options(command)
    return command


def verbosity_options(command: Any) -> Any:
    """Add `-q` and `-v` to a command or to the function that becomes one."""
    for letter, word, text in (
        ("-q", "quiet", "Print no progress on stderr."),
        ("-v", "verbose", "Also print the converters' messages on stderr, and progress as plain lines."),
    ):
        command = click.option(letter, f"--{word}", is_flag=True, expose_value=False, callback=_take, help=text)(
            command
        )
    return command


def _verbosity() -> str | None:
    ctx = click.get_current_context(silent=True)
    verbosity: str | None = ctx.meta.get(_VERBOSITY) if ctx else None
    return verbosity


def _take(ctx: click.Context, param: click.Parameter, given: bool) -> None:
    if not given or ctx.resilient_parsing:
        return
    if ctx.meta.setdefault(_VERBOSITY, param.name) != param.name:
        raise click.UsageError("-q and -v exclude each other; give one of them", ctx)
    if param.name == "verbose":
        _show_log(ctx)


def _show_log(ctx: click.Context) -> None:
    """Send what the stages log to stderr until the program ends."""
    import logging

    log = logging.getLogger("toolchain")
    if log.handlers:
        return
    handler = logging.StreamHandler()
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    # Third-party packages add handlers of their own to the root logger.
    log.propagate = False

    def close() -> None:
        log.removeHandler(handler)
        log.propagate = True

    ctx.find_root().call_on_close(close)

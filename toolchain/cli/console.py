"""What a person sees: results on stdout, progress on stderr, or one JSON object and nothing else; `-q` and `-v`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import rich_click as click

from targets.terminal_text import json_text, one_line
from toolchain.cli.streams import coloured
from toolchain.core.progress import Progress, silent

if TYPE_CHECKING:
    from rich.console import Console

    from toolchain.cli.bars import Bars

_VERBOSITY = f"{__name__}.verbosity"
_shown: list[Bars] = []
"""The bars that are on the terminal now, at most one set of them."""


def no_colour() -> bool:
    """Return whether the environment asks for plain output."""
    return bool(os.environ.get("CI") or os.environ.get("NO_COLOR"))


def plain() -> bool:
    """Return whether output goes to a log rather than a terminal (no terminal, CI, NO_COLOR or -v)."""
    return not sys.stderr.isatty() or no_colour() or verbose()


def emit(command: str, payload: dict[str, Any]) -> None:
    """Print the one JSON object of `--json`; its schema is the command's, whatever is inside has one of its own."""
    schema = {"schema": f"glyphpress/{command}/1"}
    click.echo(json_text(schema | payload | schema))


def tell(text: str) -> None:
    """Print a line of results on stdout; a line break that a name brings along is escaped."""
    click.echo(one_line(text))


def say(text: str) -> None:
    """Print a line of progress or advice on stderr, above the bars if there are any; -q keeps it."""
    if quiet():
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
    if quiet():
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


def quiet() -> bool:
    """Return whether `-q` was given to the command that runs."""
    return _said() == "quiet"


def verbose() -> bool:
    """Return whether `-v` was given to the command that runs."""
    return _said() == "verbose"


def accept(command: click.Command) -> click.Command:
    """Add both options to a command and to every command under it; adding them twice does nothing.

    A group takes them only where it does something by itself.
    """
    if isinstance(command, click.Group):
        for one in command.commands.values():
            accept(one)
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


def _said() -> str | None:
    ctx = click.get_current_context(silent=True)
    said: str | None = ctx.meta.get(_VERBOSITY) if ctx else None
    return said


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
    # Third-party packages hang handlers of their own on the root.
    log.propagate = False

    def close() -> None:
        log.removeHandler(handler)
        log.propagate = True

    ctx.find_root().call_on_close(close)

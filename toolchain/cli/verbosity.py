"""`-q` and `-v`: how much a run says on stderr; both are taken before the command's name and after it."""

from __future__ import annotations

from typing import Any

import rich_click as click

_KEY = __name__


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
        options(command)
    return command


def options(command: Any) -> Any:
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
    said: str | None = ctx.meta.get(_KEY) if ctx else None
    return said


def _take(ctx: click.Context, param: click.Parameter, given: bool) -> None:
    if not given or ctx.resilient_parsing:
        return
    if ctx.meta.setdefault(_KEY, param.name) != param.name:
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

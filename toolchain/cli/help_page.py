"""Help pages: boxes and colours on a terminal, plain text elsewhere.

Both are drawn here and not by rich-click, since importing and running rich took as long as all the rest of `--help`.
"""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

import rich_click as click
from click.core import Command as PlainCommand
from click.formatting import wrap_text

from toolchain.cli.console import no_colour
from toolchain.cli.groups import NearestGroup
from toolchain.cli.streams import ours

Rows = list[tuple[str, str]]

NAMES = 28
"""Columns for the names of options and commands; a longer one stands on a line of its own."""
WIDEST = 120
BOLD, DIM, RED, YELLOW, CYAN = "1", "2", "31", "33", "1;36"
_COLOURED = (
    (re.compile(r"(?<![\w-])--?[a-zA-Z][\w-]*"), CYAN),
    (re.compile(r"\[default: [^]]*\]"), DIM),
    (re.compile(r"\[required\]"), RED),
)


class PanelOption(click.Option):
    """An option that the help shows under a title of its own."""

    def __init__(self, *args: Any, panel: str, **settings: Any) -> None:
        """Take the title, and what every option takes."""
        super().__init__(*args, **settings)
        self.panel = panel


class HelpPage(click.RichContext):
    """The context of a command whose help is such a page."""

    def get_help(self) -> str:
        """Return the page."""
        drawn = sys.stdout.isatty() and (sys.stdout.encoding or "").lower().startswith("utf")
        return ours(_drawn(self)) if drawn and os.environ.get("TERM") != "dumb" else _plain(self)


def style_help() -> None:
    """Give every command such a page."""
    click.RichCommand.context_class = HelpPage


def _plain(ctx: click.Context) -> str:
    page = click.HelpFormatter(width=ctx.terminal_width, max_width=ctx.max_content_width)
    _write_head(page, ctx)
    for title, rows in _sections(ctx):
        with page.section(title):
            page.write_dl(rows)
    return page.getvalue().rstrip("\n")


def _write_head(page: click.HelpFormatter, ctx: click.Context) -> None:
    ctx.command.format_usage(ctx, page)
    PlainCommand.format_help_text(ctx.command, ctx, page)


def _sections(ctx: click.Context) -> Iterator[tuple[str, Rows]]:
    """Yield the options, those with a title of their own last, and the commands: title, and pairs of name and text."""
    panels: dict[str, Rows] = {"Options": []}
    for option in ctx.command.get_params(ctx):
        if isinstance(option, click.Option) and (record := option.get_help_record(ctx)):
            panels.setdefault(option.panel if isinstance(option, PanelOption) else "Options", []).append(record)
    yield from panels.items()
    if isinstance(ctx.command, NearestGroup):
        yield "Commands", ctx.command.summaries(ctx)


def _drawn(ctx: click.Context) -> str:
    width = max(50, min(os.get_terminal_size(sys.stdout.fileno()).columns or 80, WIDEST))
    head = click.HelpFormatter(width=width - 2)
    _write_head(head, ctx)
    lines = ["", *_head(head.getvalue().rstrip("\n").splitlines()), ""]
    for title, rows in _sections(ctx):
        lines += _panel(title, rows, width)
    text = "\n".join(lines)
    return re.sub(r"\x1b\[[\d;]*m", "", text) if no_colour() else text


def _head(lines: list[str]) -> Iterator[str]:
    """Yield the usage and the description, with the example dim."""
    example = False
    for line in lines:
        example |= line.strip() == "Example:"
        _, usage, rest = line.partition("Usage:")
        if usage:
            yield f" {_styled(usage, YELLOW)}{_styled(rest, BOLD)}"
        else:
            yield f" {_styled(line.removeprefix('  '), DIM) if example else _coloured(line.removeprefix('  '))}"


def _panel(title: str, rows: Rows, width: int) -> Iterator[str]:
    inner = width - 4
    first = min(max(len(name) for name, _ in rows), NAMES)
    side = _styled("│", DIM)
    yield _styled(f"╭─ {title} {'─' * (width - len(title) - 5)}╮", DIM)
    for name, text in rows:
        lines = textwrap.wrap(text, inner - first - 2, break_on_hyphens=False)
        if len(name) > first:
            for line in wrap_text(name, inner).splitlines():
                yield f"{side} {_named(line)}{' ' * (inner - len(line))} {side}"
            name = ""  # noqa: PLW2901 (it stands above its text)
        for left, right in zip_longest([name], lines, fillvalue=""):
            gap, end = " " * (first + 2 - len(left)), " " * (inner - first - 2 - len(right))
            yield f"{side} {_named(left)}{gap}{_coloured(right)}{end} {side}"
    yield _styled(f"╰{'─' * (width - 2)}╯", DIM)


def _named(name: str) -> str:
    """Return the name of a command, or an option with what it takes, in colours."""
    return _coloured(name) if name.startswith("-") else _styled(name, CYAN)


def _coloured(text: str) -> str:
    for pattern, code in _COLOURED:
        text = pattern.sub(lambda match, code=code: _styled(match[0], code), text)  # type: ignore[misc]
    return text


def _styled(text: str, code: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if text else ""

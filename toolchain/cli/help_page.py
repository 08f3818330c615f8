"""Help pages: boxes and colours on a terminal, plain text elsewhere.

Both are drawn here and not by rich-click, since importing and running rich took as long as all the rest of `--help`.
"""

from __future__ import annotations

import inspect
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

import rich_click as click

from toolchain.cli.console import no_colour
from toolchain.cli.groups import NearestGroup
from toolchain.cli.streams import ours

Rows = list[tuple[str, str]]

NAMES = 28
"""Most columns for the names of options and commands, fewer in a narrow window; a longer one stands on a line alone."""
WIDEST = 120
BOLD, DIM, RED, YELLOW, CYAN = "1", "2", "31", "33", "1;36"
PANELS = {
    "Model": "model weights trust_pickle preprocess orientation scale mean std invert label_offset",
    "Images": "data data_root classes train_data images calibration_images",
    "Limits": "policy_name policy_words drop size p50 p95",
    "Results": (
        "output outputs out save log curve csv markdown as_markdown html junit sarif verdict evidence confusion "
        "picture recipe_file save_ranges as_json open_page opened force resume"
    ),
    "General": "target targets seed threads quiet verbose version help",
}
"""Title in the help -> the parameters that stand under it in every command; a command's others are its `Options`."""
_PANEL_OF = {name: title for title, names in PANELS.items() for name in names.split()}
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


def panel_of(option: click.Parameter) -> str:
    """Return the title under which the help shows an option."""
    return option.panel if isinstance(option, PanelOption) else _PANEL_OF.get(str(option.name), "Options")


def _plain(ctx: click.Context) -> str:
    # As Click does: two columns are left free.
    width = _width(shutil.get_terminal_size().columns) - 2
    lines = _head(ctx, width)
    for title, rows in sections(ctx):
        lines += ["", f"{title}:"]
        lines += [f"  {left}{right}".rstrip() for left, right in _aligned(rows, width - 2)]
    return "\n".join(lines)


def _width(columns: int) -> int:
    """Return the width of a page."""
    return max(50, min(columns or 80, WIDEST))


def _head(ctx: click.Context, width: int) -> list[str]:
    """Return usage, summary, example and description as lines."""
    page = click.HelpFormatter(width=width)
    ctx.command.format_usage(ctx, page)
    page.write_paragraph()
    with page.indentation():
        page.write_text(_example_first(ctx.command.help or "", width - 2))
    return page.getvalue().rstrip("\n").splitlines()


def _example_first(text: str, width: int) -> str:
    """Return a help text with its example behind the summary, and long commands on several lines."""
    before, mark, example = inspect.cleandoc(text).partition("\b\nExample:\n")
    summary, _, more = before.strip().partition("\n\n")
    commands = [line for command in example.rstrip().splitlines() for line in _folded(command, width)]
    return "\n\n".join(filter(None, [summary, "\n".join(["\b", "Example:", *commands]) if mark else "", more]))


def _folded(command: str, width: int) -> list[str]:
    """Return a command as lines that a shell reads as one."""
    indent = command[: len(command) - len(command.lstrip())]
    # An option and its value stay together.
    joined = re.sub(r"( --?[a-zA-Z][\w-]*) (?=[^-\s])", r"\1\0", command.strip())
    # A line that is not the last needs two columns for its backslash.
    lines = textwrap.wrap(
        joined, width - len(indent) - 2, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    ends = [" \\"] * (len(lines) - 1) + [""]
    return [f"{indent}{line}{end}".replace("\0", " ") for line, end in zip(lines, ends, strict=True)]


def sections(ctx: click.Context) -> Iterator[tuple[str, Rows]]:
    """Yield a command's options by their panels, and the commands below it: title, and pairs of name and text.

    Where a command does nothing by itself, the commands come first.
    """
    panels: dict[str, Rows] = {}
    for option in ctx.command.get_params(ctx):
        if isinstance(option, click.Option) and (record := option.get_help_record(ctx)):
            panels.setdefault(panel_of(option), []).append(record)
    common = [title for title in PANELS if title in panels]
    own = [title for title in panels if title not in (*common, "Options")]
    titles = [*(["Options"] if "Options" in panels else []), *own, *common]
    # What must be given stands first.
    options = sorted(((title, panels[title]) for title in titles), key=lambda panel: "[required]" not in str(panel))
    below = ctx.command.sections(ctx) if isinstance(ctx.command, NearestGroup) else []
    runs = not isinstance(ctx.command, click.Group) or ctx.command.invoke_without_command
    yield from [*options, *below] if runs else [*below, *options]


def _aligned(rows: Rows, width: int) -> Iterator[tuple[str, str]]:
    """Yield lines of a name, padded to one width, and of its text; a long name stands above its text."""
    first = min(max(len(name) for name, _ in rows), NAMES, width * 2 // 5)
    for name, text in rows:
        lines = textwrap.wrap(text, width - first - 2, break_on_hyphens=False)
        names = [name] if len(name) <= first else _name_lines(name, width)
        above = names if len(name) > first else []
        yield from ((line, "") for line in above)
        for left, right in zip_longest([] if above else names, lines, fillvalue=""):
            yield left.ljust(first + 2), right


def _name_lines(name: str, width: int) -> list[str]:
    """Return an option with all that it takes as lines, broken at spaces and behind bars."""
    lines = [""]
    for part in re.findall(r"[^ |]+\|?| ", name):
        if len(lines[-1] + part) > width:
            lines.append("    ")
        lines[-1] += part if lines[-1].strip() or part != " " else ""
    return [line.rstrip() for line in lines]


def _drawn(ctx: click.Context) -> str:
    width = _width(os.get_terminal_size(sys.stdout.fileno()).columns)
    lines = ["", *_styled_head(_head(ctx, width - 2)), ""]
    for title, rows in sections(ctx):
        lines += _panel(title, rows, width)
    text = "\n".join(lines)
    return re.sub(r"\x1b\[[\d;]*m", "", text) if no_colour() else text


def _styled_head(lines: list[str]) -> Iterator[str]:
    """Yield the usage and the description, with the example dim."""
    example = False
    for line in lines:
        example = (example or line.strip() == "Example:") and bool(line.strip())
        _, usage, rest = line.partition("Usage:")
        if usage:
            yield f" {_styled(usage, YELLOW)}{_styled(rest, BOLD)}"
        else:
            yield f" {_styled(line.removeprefix('  '), DIM) if example else _coloured(line.removeprefix('  '))}"


def _panel(title: str, rows: Rows, width: int) -> Iterator[str]:
    inner = width - 4
    side = _styled("│", DIM)
    yield _styled(f"╭─ {title} {'─' * (width - len(title) - 5)}╮", DIM)
    for left, right in _aligned(rows, inner):
        yield f"{side} {_named(left)}{_coloured(right)}{' ' * (inner - len(left) - len(right))} {side}"
    yield _styled(f"╰{'─' * (width - 2)}╯", DIM)


def _named(name: str) -> str:
    """Return the name of a command, or an option with what it takes, in colours."""
    return _coloured(name) if name.lstrip().startswith("-") else _styled(name, CYAN)


def _coloured(text: str) -> str:
    for pattern, code in _COLOURED:
        text = pattern.sub(lambda match, code=code: _styled(match[0], code), text)  # type: ignore[misc]
    return text


def _styled(text: str, code: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if text else ""

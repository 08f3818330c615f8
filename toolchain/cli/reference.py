"""The command list of README, made from the commands themselves: `python -m toolchain.cli.reference README.md`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import rich_click as click

from toolchain.cli.main import glyphpress

MARKS = "<!-- commands -->\n", "<!-- end of commands -->\n"


def commands() -> str:
    """Return a Markdown table of every command and the first sentence of its help."""
    context = click.Context(glyphpress, info_name="glyphpress")
    lines = ["| command | |\n", "| --- | --- |\n"]
    for name in glyphpress.list_commands(context):
        command = glyphpress.get_command(context, name)
        assert command is not None
        usage = f"{name} {_below(command)}".strip()
        summary = (command.help or "").split("\n\n")[0].replace("\n", " ")
        lines.append(f"| `{usage}` | {summary} |\n")
    return "".join(lines)


def _below(command: click.Command) -> str:
    """Return the commands of a group, in brackets where it does something without them."""
    if not isinstance(command, click.Group):
        return ""
    parts = "\\|".join(command.commands)
    return f"[{parts}]" if command.invoke_without_command else parts


def with_commands(readme: str) -> str:
    """Return README's text with its command list made anew."""
    start, end = map(re.escape, MARKS)
    return re.sub(f"({start}).*?({end})", lambda list_: list_[1] + commands() + list_[2], readme, flags=re.DOTALL)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_commands(path.read_text(encoding="utf-8")), encoding="utf-8")

"""Groups of commands: an unknown name is answered with the nearest ones, and every command takes `-q` and `-v`."""

from __future__ import annotations

from importlib import import_module
from itertools import pairwise
from typing import Any

import rich_click as click

from targets.nearest import nearest
from toolchain.cli import verbosity


class NearestGroup(click.RichGroup):
    """A group that answers an unknown command with the nearest known ones."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or fail with the nearest names."""
        known = self.list_commands(ctx)
        # While the shell completes a line, Click wants no errors.
        if args and args[0] not in known and not args[0].startswith("-") and not ctx.resilient_parsing:
            near = nearest(args[0], known, "")
            said = " ".join([*ctx.command_path.split()[1:], args[0]])
            ctx.fail(f"no command '{said}'; {near}" if near else f"no command '{said}'")
        return super().resolve_command(ctx, args)


class LazyGroup(NearestGroup):
    """A group whose commands are imported when they are named."""

    def __init__(self, *args: Any, table: dict[str, str], **settings: Any) -> None:
        """Take the table name -> "module:attribute" beside Click's own settings."""
        super().__init__(*args, **settings)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (the signature is Click's)
        """Return every command's name."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return a command, or None when there is no such name."""
        if cmd_name not in self.table:
            return None
        module, attribute = self.table[cmd_name].split(":")
        command: click.Command = getattr(import_module(module), attribute)
        return verbosity.accept(command)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse an empty word: as a path it would be the current folder, as an option it would be left out."""
        for before, word in pairwise(["", *args]):
            name = word.removesuffix("=") if word.startswith("--") and word.endswith("=") else before
            if word in {"", f"{name}="} and not ctx.resilient_parsing:
                what = f"the value of {name}" if name.startswith("-") else "an argument"
                ctx.fail(f"{what} is empty; give one (is a variable of the shell unset?)")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; Ctrl-C keeps what the stage said about it, which Click would drop for an empty line."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise click.Abort(str(stop) or "interrupted") from stop

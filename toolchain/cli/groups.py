"""Groups of commands: an unknown name is answered with the nearest ones, and every command takes `-q` and `-v`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import rich_click as click
from click.core import Command as PlainCommand

from targets.errors import nearest
from toolchain.cli import console

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


WHOLE = 1000
"""So many letters that no sentence is cut off."""


class NearestGroup(click.RichGroup):
    """A group that answers an unknown command with the nearest known ones."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or fail with the nearest names."""
        known = self.list_commands(ctx)
        # While a shell completes a line there are no errors.
        if args and args[0] not in known and not args[0].startswith("-") and not ctx.resilient_parsing:
            near = nearest(args[0], known, "")
            path = " ".join([*ctx.command_path.split()[1:], args[0]])
            ctx.fail(f"no command '{path}'; {near}" if near else f"no command '{path}'")
        return super().resolve_command(ctx, args)

    def summaries(self, ctx: click.Context) -> list[tuple[str, str]]:
        """Return every command's name and the first sentence of its help."""
        return [(name, self.commands[name].get_short_help_str(WHOLE)) for name in self.list_commands(ctx)]

    def sections(self, ctx: click.Context) -> list[tuple[str, list[tuple[str, str]]]]:
        """Return the commands as the help shows them: titles, and what `summaries` gives."""
        return [("Commands", self.summaries(ctx))]


class FileGroup(NearestGroup):
    """A command that takes files, and has commands below it: a first word that names one of these runs it.

    A file of such a name is written `./list`.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options and files, or the options in front of the name of a command."""
        ctx.meta[_NAMED] = self._named(args)
        ctx.allow_interspersed_args = not ctx.meta[_NAMED]
        return PlainCommand.parse_args(self, ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return what the command takes; in front of the name of another one only the options of every command."""
        params = super().get_params(ctx)
        return [param for param in params if param.name in _EVERYWHERE] if ctx.meta.get(_NAMED) else params

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command below; its usage line then does not name the files that this one takes."""
        command = super().get_command(ctx, cmd_name)
        ctx.meta[_NAMED] = ctx.meta.get(_NAMED) or command is not None
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run the command that was named, or this one."""
        if not ctx.meta[_NAMED]:
            return PlainCommand.invoke(self, ctx)
        name, command, rest = self.resolve_command(ctx, ctx.args)
        assert command, "the first word names a command"
        with ctx, command.make_context(name, rest, parent=ctx) as below:
            return below.command.invoke(below)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Return the words of the usage line, without those of the commands below."""
        return PlainCommand.collect_usage_pieces(self, ctx)

    def _named(self, args: list[str]) -> bool:
        """Return whether the first word that is neither `-q` nor `-v` names a command."""
        first = next((word for word in args if word not in _VERBOSITY), "")
        return first in self.commands


_NAMED = f"{__name__}.named"
_VERBOSITY = ("-q", "--quiet", "-v", "--verbose")
_EVERYWHERE = ("quiet", "verbose", "help")


class LazyGroup(NearestGroup):
    """A group whose commands are imported when they are used; the group's own help and completion import none."""

    def __init__(
        self, *args: Any, table: dict[str, tuple[str, str]], groups: dict[str, tuple[str, ...]], **settings: Any
    ) -> None:
        """Take the commands beside Click's own settings.

        table: name -> (module:attribute, the first sentence of its help). groups: title in the help -> names; commands
        that it does not have come last.
        """
        super().__init__(*args, **settings)
        self.table, self.groups = table, groups
        self._listing = False

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (the signature is Click's)
        """Return every command's name."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return a command, None if there is none of that name; for a list, only its summary."""
        if cmd_name not in self.table:
            return None
        target, summary = self.table[cmd_name]
        if self._listing:
            return click.RichCommand(name=cmd_name, help=summary)
        module, attribute = target.split(":")
        command: click.Command = getattr(import_module(module), attribute)
        return console.accept(command)

    def summaries(self, ctx: click.Context) -> list[tuple[str, str]]:  # noqa: ARG002
        """Return every command's name and the first sentence of its help."""
        return [(name, summary) for name, (_, summary) in self.table.items()]

    def sections(self, ctx: click.Context) -> list[tuple[str, list[tuple[str, str]]]]:
        """Return the commands by their groups."""
        rest = dict(self.summaries(ctx))
        grouped = [(title, [(name, rest.pop(name)) for name in names]) for title, names in self.groups.items()]
        return [*grouped, ("More", [*rest.items()])]

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Return the options and the commands that begin with the typed text."""
        with self._names_alone():
            return super().shell_complete(ctx, incomplete)

    @contextmanager
    def _names_alone(self) -> Iterator[None]:
        self._listing = True
        try:
            yield
        finally:
            self._listing = False

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse an empty argument: a path would be the current folder, and an option would be ignored."""
        for before, word in pairwise(["", *args]):
            name = word.removesuffix("=") if word.startswith("--") and word.endswith("=") else before
            if word in {"", f"{name}="} and not ctx.resilient_parsing:
                what = f"the value of {name}" if name.startswith("-") else "an argument"
                ctx.fail(f"{what} is empty; give one (is a variable of the shell unset?)")
        return super().parse_args(ctx, args)

    def make_context(self, *args: Any, **settings: Any) -> click.Context:
        """Read the command line."""
        with _interruptible():
            return super().make_context(*args, **settings)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command."""
        with _interruptible():
            from toolchain.core.files import scratch

            with scratch():
                return super().invoke(ctx)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Keep the message of an interrupted stage, which Click would replace with an empty line."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise click.Abort(str(stop) or "interrupted") from stop

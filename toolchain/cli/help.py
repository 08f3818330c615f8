"""What help looks like, and `glyphpress help`: the exit codes, and the help of a command."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import rich_click as click
from click.core import Command as PlainCommand

from targets.errors import nearest
from toolchain.cli.console import no_colour
from toolchain.cli.groups import NearestGroup
from toolchain.cli.streams import ours
from toolchain.core.errors import UsageProblem

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

EXIT_CODES = """\
  0  passed, or done
  1  the gate failed: a verdict is FAIL
  2  usage error: invalid arguments, policy or recipe
  3  stage error: a damaged or unsuitable file, data set or model, or a full disk
  4  a target or an optional package is not available
  5  inconclusive: no verdict is FAIL, but at least one limit could not be decided
 70  a bug in glyphpress: please report it with the lines on stderr
130  interrupted (Ctrl-C, SIGTERM)"""


class _Page(click.RichContext):
    """Help with boxes and colours on a terminal; elsewhere plain text, which takes no time to import rich."""

    def get_help(self) -> str:
        return ours(super().get_help()) if sys.stdout.isatty() else _plain(self.command, self)


def style_help() -> None:
    """Give every command such help; no colours under CI, where rich-click would force them (GITHUB_ACTIONS)."""
    click.RichCommand.context_class = _Page
    if no_colour():
        click.rich_click.COLOR_SYSTEM = None
        click.rich_click.FORCE_TERMINAL = False


def _plain(command: click.Command, ctx: click.Context) -> str:
    page = click.HelpFormatter(width=ctx.terminal_width, max_width=ctx.max_content_width)
    command.format_usage(ctx, page)
    PlainCommand.format_help_text(command, ctx, page)
    records = (param.get_help_record(ctx) for param in command.get_params(ctx))
    with page.section("Options"):
        page.write_dl([record for record in records if record])
    if isinstance(command, NearestGroup):
        with page.section("Commands"):
            page.write_dl(command.summaries(ctx))
    return page.getvalue().rstrip("\n")


def _topics(ctx: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem[str]]:
    """Offer what may follow the words that stand there."""
    from click.shell_completion import CompletionItem

    above: click.Context | None = ctx.find_root()
    for word in ctx.params.get("topic") or ():
        above = above and _entered(above, word)
    return [CompletionItem(name) for name in (_below(above) if above else ()) if name.startswith(begun)]


@click.command("help")
@click.argument("topic", nargs=-1, shell_complete=_topics)
@click.pass_context
def help_(ctx: click.Context, topic: tuple[str, ...]) -> None:
    """Explain the exit codes, or show the help of a command.

    \b
    Example:
      glyphpress help exit-codes
      glyphpress help gate init
    """
    if topic == ("exit-codes",):
        click.echo(EXIT_CODES)
        return
    above = ctx.find_root()
    for word in topic:
        command = _entered(above, word)
        if command is None:
            see = " ".join(["glyphpress", *above.command_path.split()[1:], "--help"])
            raise UsageProblem(f"no help on '{' '.join(topic)}'; {nearest(word, _below(above), f'see `{see}`')}")
        above = command
    click.echo(above.get_help())


def _entered(ctx: click.Context, word: str) -> click.Context | None:
    """Return the context of the command that a word leads to from another one's, or None."""
    command = ctx.command.get_command(ctx, word) if isinstance(ctx.command, click.Group) else None
    return type(ctx)(command, info_name=word, parent=ctx) if command else None


def _below(ctx: click.Context) -> list[str]:
    """Return the words that may follow those of a context."""
    names = ctx.command.list_commands(ctx) if isinstance(ctx.command, click.Group) else []
    return names if ctx.parent else ["exit-codes", *names]

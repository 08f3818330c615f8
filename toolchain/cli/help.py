"""`glyphpress help`: the exit codes, and the help of a command."""

from __future__ import annotations

import rich_click as click
from click.shell_completion import CompletionItem

from targets.nearest import nearest
from toolchain.errors import UsageProblem

EXIT_CODES = """\
  0  passed, or done
  1  the gate failed: a verdict is FAIL
  2  usage: words, a policy or a recipe that cannot be meant
  3  a stage error: a file, data set or model that is not what it should be, a full disk
  4  a target or an optional package is not available here
  5  inconclusive: no verdict is FAIL, but one could not be reached
 70  a bug in glyphpress: the lines on stderr belong into a report
130  interrupted (Ctrl-C, SIGTERM)"""


def _topics(ctx: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem[str]]:
    """Offer what may follow the words that stand there."""
    above: click.Context | None = ctx.find_root()
    for word in ctx.params.get("topic") or ():
        above = above and _entered(above, word)
    return [CompletionItem(name) for name in (_below(above) if above else ()) if name.startswith(begun)]


@click.command("help")
@click.argument("topic", nargs=-1, shell_complete=_topics)
@click.pass_context
def help_(ctx: click.Context, topic: tuple[str, ...]) -> None:
    """Explain `exit-codes`, or a command.

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

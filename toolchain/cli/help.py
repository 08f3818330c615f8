"""`glyphpress help`: the exit codes, and the help of a command."""

from __future__ import annotations

import difflib

import rich_click as click

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


@click.command("help")
@click.argument("topic", required=False)
@click.pass_context
def help_(ctx: click.Context, topic: str | None) -> None:
    """Explain `exit-codes`, or a command.

    \b
    Example:
      glyphpress help exit-codes
    """
    program = ctx.parent
    if topic == "exit-codes":
        click.echo(EXIT_CODES)
    elif topic is None and program is not None:
        click.echo(program.get_help())
    else:
        click.echo(_help_of(ctx, topic or "help"))


def _help_of(ctx: click.Context, name: str) -> str:
    program = ctx.find_root()
    group = program.command
    assert isinstance(group, click.Group)
    command = group.get_command(program, name)
    if command is None:
        known = ["exit-codes", *group.list_commands(program)]
        near = difflib.get_close_matches(name, known, n=3) or known
        raise UsageProblem(f"no help on '{name}'; did you mean {', '.join(near)}?")
    return command.get_help(type(program)(command, info_name=name, parent=program))

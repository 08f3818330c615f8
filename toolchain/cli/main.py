"""The program `glyphpress`: finds the command, and turns the project's own errors into one line and an exit code."""

from __future__ import annotations

import difflib
import sys
from importlib import import_module
from typing import NoReturn

import rich_click as click

from toolchain.errors import exit_code

# name -> "module:attribute"; imported only when the command is used, so that --help stays fast.
COMMANDS = {
    "inspect": "toolchain.cli.inspect:inspect",
    "data": "toolchain.cli.data:data",
    "train": "toolchain.cli.train:train",
    "press": "toolchain.cli.press:press",
    "prune": "toolchain.cli.prune:prune",
    "export": "toolchain.cli.export:export",
    "quantize": "toolchain.cli.quantize:quantize",
    "evaluate": "toolchain.cli.evaluate:evaluate",
    "compare": "toolchain.cli.compare:compare",
    "profile": "toolchain.cli.profile:profile",
    "gate": "toolchain.cli.gate:gate",
    "recipe": "toolchain.cli.recipe:recipe",
    "targets": "toolchain.cli.targets:targets",
    "report": "toolchain.cli.report:report",
    "demo": "toolchain.cli.demo:demo",
    "version": "toolchain.cli.version:version",
    "help": "toolchain.cli.help:help_",
}


class LazyGroup(click.RichGroup):
    """A group whose commands are imported when they are named."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (the signature is Click's)
        """Return every command's name."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return a command, or None when there is no such name."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Answer an unknown command with the nearest known ones."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=3) or list(COMMANDS)
            ctx.fail(f"no command '{args[0]}'; did you mean {', '.join(near)}?")
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
def glyphpress() -> None:
    """Press a trained handwriting model until it fits the device, and refuse to ship it when it reads worse.

    \b
    Example:
      glyphpress press cnn-small --data emnist:balanced --recipe static-int8 --out out/
    """


def main() -> NoReturn:
    """Run the program; only the project's own errors are caught, a bug keeps its traceback."""
    try:
        sys.exit(glyphpress(standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort as error:
        # Click turns Ctrl-C into Abort; what the stage said about it is still there as its context.
        click.echo(f"glyphpress: {str(error.__context__ or '') or 'interrupted'}", err=True)
        sys.exit(130)
    except BaseException as error:
        code = exit_code(error)
        if code is None:
            raise
        click.echo(f"glyphpress: {str(error) or 'interrupted'}", err=True)
        sys.exit(code)

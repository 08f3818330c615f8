"""The program `glyphpress`: finds the command, and turns what stops it into one line and an exit code."""

from __future__ import annotations

import signal
from contextlib import suppress

_UNTOUCHED = signal.getsignal(signal.SIGINT) is signal.default_int_handler


def _on_ctrl_c(handler: signal.Handlers | object) -> None:
    if _UNTOUCHED:
        with suppress(ValueError):  # only the main thread may
            signal.signal(signal.SIGINT, handler)  # type: ignore[arg-type]


# While there is nothing to clean up yet, Ctrl-C ends the process at once and without a traceback.
_on_ctrl_c(signal.SIG_DFL)
try:
    import os
    import sys
    from typing import Any, NoReturn

    import rich_click as click

    from toolchain.cli import complete, console, failure, verbosity
    from toolchain.cli.groups import LazyGroup
    from toolchain.cli.streams import lossy_streams, undelivered
    from toolchain.files import scratch
    from toolchain.interrupt import heard
finally:
    _on_ctrl_c(signal.default_int_handler)

# name -> "module:attribute"; imported only when the command is used, so that --help stays fast.
COMMANDS = {
    "inspect": "toolchain.cli.inspect:inspect",
    "data": "toolchain.cli.data:data",
    "train": "toolchain.cli.train:train",
    "press": "toolchain.cli.press:press",
    "adopt": "toolchain.cli.adopt:adopt",
    "prune": "toolchain.cli.prune:prune",
    "distill": "toolchain.cli.distill:distill",
    "sensitivity": "toolchain.cli.prune:sensitivity",
    "export": "toolchain.cli.export:export",
    "quantize": "toolchain.cli.quantize:quantize",
    "ranges": "toolchain.cli.quantize:ranges",
    "explain": "toolchain.cli.explain:explain",
    "evaluate": "toolchain.cli.evaluate:evaluate",
    "compare": "toolchain.cli.compare:compare",
    "profile": "toolchain.cli.profile:profile",
    "probe-int8": "toolchain.cli.probe_int8:probe_int8",
    "gate": "toolchain.cli.gate:gate",
    "recipe": "toolchain.cli.recipe:recipe",
    "targets": "toolchain.cli.targets:targets",
    "report": "toolchain.cli.report:report",
    "demo": "toolchain.cli.demo:demo",
    "version": "toolchain.cli.version:version",
    "help": "toolchain.cli.help:help_",
}


def _print_version(ctx: click.Context, _param: click.Parameter, given: bool) -> None:
    if given and not ctx.resilient_parsing:
        from toolchain.versions import tool_versions

        click.echo(f"glyphpress {tool_versions().get('glyphpress', '(not installed)')}")
        ctx.exit()


@click.group(
    cls=LazyGroup, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version; `glyphpress version` prints every runtime's too.",
)
@verbosity.options
def glyphpress() -> None:
    """Press a trained handwriting model until it fits the device, and refuse to ship it when it reads worse.

    \b
    Example:
      glyphpress press cnn-small --data emnist:balanced --out out/
    """


def main() -> NoReturn:
    """Run the program and exit with the code of `glyphpress help exit-codes`; only a bug keeps its traceback."""
    with lossy_streams() as stdout:
        code = _run()
        if (lost := undelivered(stdout)) and not code:
            code = failure.end(OSError(lost.errno, lost.strerror, "stdout"))
    if stdout and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Nothing is left to clean up, so that Ctrl-C may end the libraries' own clean-up without a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(code)


def _run() -> Any:
    # Read when torch is loaded: threads that spin while they wait make training several times slower on busy cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        with heard(), scratch():
            console.style_help()
            complete.register()
            return glyphpress(prog_name="glyphpress", standalone_mode=False)
    except SystemExit as stop:
        # Click answers a pipe that was closed with 1, which is a failed gate's alone.
        return failure.end(stop.__context__) if isinstance(stop.__context__, OSError) else stop.code
    except BaseException as error:  # noqa: BLE001 (a bug keeps its traceback and gets an exit code of its own)
        return failure.end(error)

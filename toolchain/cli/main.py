"""The program `glyphpress`: its table of commands, and how it starts and ends."""

from __future__ import annotations

import signal
from contextlib import suppress

_UNTOUCHED = signal.getsignal(signal.SIGINT) is signal.default_int_handler


def _on_ctrl_c(handler: signal.Handlers | object) -> None:
    if _UNTOUCHED:
        with suppress(ValueError):  # only the main thread may
            signal.signal(signal.SIGINT, handler)  # type: ignore[arg-type]


# Until there is something to clean up, Ctrl-C ends the process at once and without a traceback.
_on_ctrl_c(signal.SIG_DFL)
try:
    import gc
    import os
    import sys
    import warnings
    from typing import Any, NoReturn

    import rich_click as click

    from glyphpress.registry import NO_PLUGINS, tell_problems
    from toolchain.cli import console
    from toolchain.cli.groups import LazyGroup
    from toolchain.cli.help_page import style_help
    from toolchain.cli.streams import lossy_streams, undelivered
    from toolchain.core.interrupt import heard
finally:
    _on_ctrl_c(signal.default_int_handler)

# name -> (module:attribute, the first sentence of its help); a command is imported only when it is used.
COMMANDS = {
    "inspect": (
        "toolchain.cli.model_files:inspect",
        "Show what a checkpoint, .onnx or .tflite holds: layers, shapes, parameters, MACs, dtypes, sizes, metadata.",
    ),
    "data": ("toolchain.cli.data:data", "List, check and fetch the images."),
    "train": (
        "toolchain.cli.train:train",
        "Train a reference model on a train split and measure it once on the test split.",
    ),
    "press": (
        "toolchain.cli.press:press",
        "Prune, convert and quantize a model, then evaluate, time and judge every file that came out.",
    ),
    "adopt": (
        "toolchain.cli.model_files:adopt",
        "Write the sidecar of an .onnx or .tflite of your own: its classes, and how it wants its images.",
    ),
    "prune": (
        "toolchain.cli.compress:prune",
        "Prune a checkpoint and fine-tune the rest; the result is a torch.export program for `export` and `press`.",
    ),
    "distill": (
        "toolchain.cli.compress:distill",
        "Fit a smaller model to a checkpoint's answers; the result is a torch.export program for `export` and `press`.",
    ),
    "sensitivity": (
        "toolchain.cli.compress:sensitivity",
        "Prune each layer alone at rising ratios, measure the accuracy, and propose a ratio for each layer.",
    ),
    "export": (
        "toolchain.cli.model_files:export",
        "Convert a checkpoint to float ONNX or TFLite, or an .onnx made by glyphpress to .ort, and check the result.",
    ),
    "quantize": (
        "toolchain.cli.quantize:quantize",
        "Quantize a float artifact, or a float .onnx of your own, to 16, 8 or 4 bits.",
    ),
    "ranges": ("toolchain.cli.quantize:ranges", "Show and draw the ranges that `quantize --save-ranges` saved."),
    "explain": (
        "toolchain.cli.evaluate:explain",
        "Show the error of a quantized file layer by layer, and which operators still run in float and why.",
    ),
    "evaluate": (
        "toolchain.cli.evaluate:evaluate",
        "Run an exported file over the whole test split: accuracy, per class, confusions.",
    ),
    "read": (
        "toolchain.cli.read:read",
        "Read pictures of handwriting: a word, a line or a page each, with any model file of a press.",
    ),
    "snippet": (
        "toolchain.cli.snippet:snippet",
        "Print a complete program that reads pictures with this very file, without glyphpress.",
    ),
    "deploy": (
        "toolchain.cli.deploy:deploy",
        "Put a model file on a board (ssh://[USER@]HOST[:PORT]) and let it read pictures there as a service.",
    ),
    "compare": (
        "toolchain.cli.evaluate:compare",
        "Compare two model files, or two saved evaluations (.npz), image by image.",
    ),
    "profile": (
        "toolchain.cli.profile:profile",
        "Measure latency, or instructions on emulated processors, of model files on one or more targets.",
    ),
    "probe-int8": (
        "toolchain.cli.profile:probe_int8",
        "Estimate what int8 costs compared with float on a target, with small models of your layers' shapes.",
    ),
    "gate": ("toolchain.cli.gate:gate", "Judge a candidate: exit 0 passed, 1 failed, 5 inconclusive."),
    "recipe": ("toolchain.cli.recipe:recipe", "List and show recipes."),
    "targets": (
        "toolchain.cli.targets:targets",
        "List, show, check and set up the targets on which files run.",
    ),
    "report": (
        "toolchain.cli.report:report",
        "Print the report of a press or profile, or the timings that `profile -o` or a press stored.",
    ),
    "kiosk": (
        "toolchain.cli.kiosk:kiosk",
        "Serve a page on which anybody writes a word, and sees what the float and the pressed model read.",
    ),
    "demo": (
        "toolchain.cli.press:demo",
        "Train a small model on real handwritten digits, press it three ways, and judge every file.",
    ),
    "plugins": (
        "toolchain.cli.plugins:plugins",
        "List the plug-ins that installed packages add, and whether they load.",
    ),
    "schema": (
        "toolchain.cli.schema:schema",
        "Print a JSON schema, or list all: of policies, recipes, sidecars, reports, verdicts and what `--json` prints.",
    ),
    "version": (
        "toolchain.cli.help:version",
        "Print the versions of glyphpress, Python, the system and every installed runtime.",
    ),
    "help": ("toolchain.cli.help:help_", "Explain the exit codes, or show the help of a command."),
}

GROUPS = {
    "Prepare": ("data", "train", "inspect", "adopt"),
    "Compress": ("press", "prune", "distill", "sensitivity", "export", "quantize", "ranges", "recipe"),
    "Measure": ("evaluate", "compare", "explain", "profile", "probe-int8", "targets"),
    "Decide": ("gate", "report"),
    "Use": ("read", "kiosk", "snippet", "deploy"),
}
"""Title in the help -> commands; what is in none stands under `More`."""


def _print_version(ctx: click.Context, _param: click.Parameter, given: bool) -> None:
    if given and not ctx.resilient_parsing:
        from toolchain.core.versions import tool_versions

        click.echo(f"glyphpress {tool_versions().get('glyphpress', '(not installed)')}")
        ctx.exit()


def _refuse_plugins(ctx: click.Context, _param: click.Parameter, given: bool) -> None:
    if given:
        before = os.environ.get(NO_PLUGINS, "0")
        ctx.call_on_close(lambda: os.environ.update({NO_PLUGINS: before}))
        os.environ[NO_PLUGINS] = "1"  # which other processes of the command read too


@click.group(
    cls=LazyGroup,
    table=COMMANDS,
    groups=GROUPS,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version; `glyphpress version` prints every runtime's too.",
)
@click.option(
    "--no-plugins",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_refuse_plugins,
    help="Use no plug-in of another package, as GLYPHPRESS_NO_PLUGINS=1 does.",
)
@console.verbosity_options
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
            code = _end(OSError(lost.errno, lost.strerror, "stdout"))
    if stdout and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Nothing of ours is left to clean up: Ctrl-C may now end the libraries' clean-up without a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        # The interpreter need not search all imported modules for garbage before it ends.
        gc.freeze()
    sys.exit(code)


def _run() -> Any:
    # Read when torch is loaded: threads that spin while they wait make training several times slower on busy cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Pydantic would search every installed package for plug-ins, and none may change what the gate accepts.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # Warnings of libraries are for programmers, who see them by `python -W default`.
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    try:
        with heard():
            tell_problems(console.warn)
            style_help()
            if "_GLYPHPRESS_COMPLETE" in os.environ:
                from toolchain.cli import complete_shells

                complete_shells.register()
            return glyphpress(prog_name="glyphpress", standalone_mode=False)
    except SystemExit as stop:
        if "_GLYPHPRESS_COMPLETE" in os.environ:
            return stop.code
        # Rich-click exits after it printed the help of a group without a command, and with 1 after a closed pipe, where
        # 1 means a failed gate. Other exits are of libraries.
        return _end(stop.__context__ if isinstance(stop.__context__, OSError | click.ClickException) else stop)
    except BaseException as error:  # noqa: BLE001 (a bug keeps its traceback and gets an exit code of its own)
        # What is printed while a shell completes a line would stand in its middle.
        return 1 if "_GLYPHPRESS_COMPLETE" in os.environ else _end(error)


def _end(error: BaseException) -> int:
    from toolchain.cli import failure

    return failure.end(error)

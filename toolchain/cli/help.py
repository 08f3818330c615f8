"""`glyphpress help` and `version`: the exit codes, the help of a command, and what to paste into a bug report."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import rich_click as click

from targets.errors import nearest
from toolchain.cli import console, options
from toolchain.core.errors import UsageProblem

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


EXIT_CODES = """\
  0  passed, or done
  1  the gate failed: a verdict is FAIL
  2  usage error: invalid arguments, policy or recipe
  3  stage error: a damaged or unsuitable file, data set or model, or a full disk
  4  a target, an optional package or a plug-in is not available
  5  inconclusive: no verdict is FAIL, but at least one limit could not be decided
 70  a bug in glyphpress: please report it with the lines on stderr
130  interrupted (Ctrl-C, SIGTERM)"""


def _topics(ctx: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem[str]]:
    """Offer the words that may follow those that are typed already."""
    from click.shell_completion import CompletionItem

    above: click.Context | None = ctx.find_root()
    for word in ctx.params.get("topic") or ():
        above = above and _subcommand(above, word)
    return [CompletionItem(name) for name in (_topics_below(above) if above else ()) if name.startswith(begun)]


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
        command = _subcommand(above, word)
        if command is None:
            see = " ".join(["glyphpress", *above.command_path.split()[1:], "--help"])
            raise UsageProblem(f"no help on '{' '.join(topic)}'; {nearest(word, _topics_below(above), f'see `{see}`')}")
        above = command
    click.echo(above.get_help())


def _subcommand(ctx: click.Context, word: str) -> click.Context | None:
    """Return the context of a subcommand, or None if there is none of that name."""
    command = ctx.command.get_command(ctx, word) if isinstance(ctx.command, click.Group) else None
    return type(ctx)(command, info_name=word, parent=ctx) if command else None


def _topics_below(ctx: click.Context) -> list[str]:
    """Return the names of the subcommands, and at the root the other topics of help."""
    names = ctx.command.list_commands(ctx) if isinstance(ctx.command, click.Group) else []
    return names if ctx.parent else ["exit-codes", *names]


PACKAGES = (
    *("torch", "onnx", "onnxscript", "onnxruntime", "litert-torch", "ai-edge-litert", "litert-quantizer"),
    *("openvino", "onnxruntime-gpu", "onnxruntime-ep-webgpu", "tensorrt", "playwright", "torch-pruning", "onnx2torch"),
    *("skl2onnx", "pyarrow", "numpy", "scipy", "scikit-learn", "safetensors", "flatbuffers"),
)


@click.command()
@options.json_option
def version(as_json: bool) -> None:
    """Print the versions of glyphpress, Python, the system and every installed runtime.

    \b
    Example:
      glyphpress version --json
    """
    from targets.host.machine import machine_state
    from toolchain.core.versions import tool_versions

    state = machine_state()
    machine = {key: state[key] for key in ("os", "kernel", "architecture", "cpu") if key in state}
    installed = tool_versions(*PACKAGES)
    if as_json:
        console.emit("version", {"python": platform.python_version(), "machine": machine, "packages": installed})
        return
    facts = {"glyphpress": installed.pop("glyphpress", "not installed"), "python": platform.python_version()}
    for name, value in (facts | machine | installed).items():
        click.echo(f"{name:18} {value}")

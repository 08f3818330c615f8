"""`glyphpress snippet`: a program that reads pictures with one model file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from toolchain.cli import complete, console, options, values

if TYPE_CHECKING:
    from toolchain.core.context import RunContext


@click.command()
@click.argument("file", type=values.FILE, shell_complete=complete.FLOAT_FILE)
@click.option(
    "--for",
    "language",
    type=click.Choice(["python-onnx", "python-litert", "javascript", "web", "c++", "java-android"]),
    help="What the program is written for. Default: the one that opens the file.",
)
@click.option(
    "-o", "--output", type=values.OUTPUT_FILE, help="Write the program to this file (.py, .mjs, .html, .cpp, .java)."
)
@options.run_options(force=True)
def snippet(*, file: Path, language: str | None, output: Path | None, context: RunContext) -> None:
    """Print a complete program that reads pictures with this very file, without glyphpress.

    It checks the file's digest, prepares each picture as the sidecar says, and prints the character with its
    probability. Keep it beside the file. Its first lines say what it needs and how to start it.

    \b
    Example:
      glyphpress snippet out/static-int8.onnx -o out/read.py
      glyphpress snippet out/static-int8.tflite > out/read.py
      glyphpress snippet out/static-int8.onnx --for javascript -o out/read.mjs
      glyphpress snippet out/static-int8.tflite --for web -o out/read.html
      glyphpress snippet out/static-int8.onnx --for c++ -o out/read.cpp
      glyphpress snippet static-int8.tflite --for java-android > GlyphReader.java
    """
    from toolchain.commands.snippet import language_for
    from toolchain.commands.snippet import snippet as program
    from toolchain.core.files import refuse_unfit, write_whole
    from toolchain.evaluation.untracked import open_described

    artifact = open_described(file)
    if output:
        refuse_unfit(output, language_for(artifact, language).suffix, force=context.force)
    text = program(artifact, language)
    if output:
        write_whole(output, text, force=context.force)
        beside = output.absolute().with_name(file.name)
        advice = "keep both in one folder" if beside.is_file() else f"copy that file to {beside.parent}"
        console.tell(f"{output}: reads pictures with {file.name}; {advice}")
    else:
        click.echo(text, nl=False)

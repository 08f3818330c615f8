"""`glyphpress inspect`: what a model file is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import rich_click as click

from toolchain.cli import complete, console
from toolchain.cli.checkpoint_options import weights_option
from toolchain.cli.options import json_option, packed_option, run_options

if TYPE_CHECKING:
    from toolchain.core.context import RunContext


@click.command()
@click.argument("file", metavar="FILE", shell_complete=complete.ANY_MODEL)
@click.option("--model", metavar="SOURCE", help="The class that the weights belong to, FILE.py:CLASS or MODULE:CLASS.")
@click.option("--trust-pickle", is_flag=True, help="Allow the code in a pickle, .pt2 or TorchScript file to run.")
@weights_option
@packed_option
@run_options()
@json_option
def inspect(
    *,
    file: str,
    model: str | None,
    trust_pickle: bool,
    weights: str | None,
    packed: bool,
    context: RunContext,
    as_json: bool,
) -> None:
    """Show what a checkpoint, .onnx or .tflite holds: layers, shapes, parameters, MACs, dtypes, sizes, metadata.

    \b
    Example:
      glyphpress inspect cnn-small
    """
    from toolchain.checkpoint.inspection import inspect_file
    from toolchain.formats.packed import shown_size
    from toolchain.report.inspection import show_inspection

    found = inspect_file(file, model=model, trust_pickle=trust_pickle, weights=weights)
    if found.kind in ("onnx", "tflite"):
        found = replace(found, packed=shown_size(found.path, asked=packed, progress=context.progress))
    if as_json:
        console.emit("inspect", found.to_dict())
    else:
        show_inspection(found, console.out())

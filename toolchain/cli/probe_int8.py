"""`glyphpress probe-int8`: whether int8 will be faster somewhere, before anything is quantized."""

from __future__ import annotations

from typing import TYPE_CHECKING

import rich_click as click

from toolchain.cli import console, options

if TYPE_CHECKING:
    from toolchain.core.context import RunContext


@click.command("probe-int8")
@click.argument("shapes", metavar="[SHAPE...]", nargs=-1)
@options.target_option
@options.run_options(seed=True)
@options.json_option
def probe_int8(*, shapes: tuple[str, ...], target: str | None, context: RunContext, as_json: bool) -> None:
    """Estimate what int8 costs compared with float on a target, with small models of your layers' shapes.

    SHAPE is INxOUT of a matrix (576x47), or INxOUTxKERNEL@HEIGHTxWIDTH of a convolution (16x32x3@14x14); without one,
    three shapes that are common in handwriting models. A float .onnx instead gives the shapes of its layers. Each shape
    is weighted by its cost in float.

    \b
    Example:
      glyphpress probe-int8 --target arm64:cortex-a72 16x32x3@14x14
      glyphpress probe-int8 --target arm64:cortex-a72 cnn.float.onnx
    """
    from toolchain.commands.probe_int8 import probe_int8 as run
    from toolchain.report.timings import not_quiet

    found = run(target or "ort-cpu", shapes, context)
    if as_json:
        console.emit("probe-int8", found.to_dict())
        return
    for one in found.ratios:
        interval = f" [{one.low:.2f}, {one.high:.2f}]" if one.low is not None and one.high is not None else ""
        console.write(f"{one.format:8} {one.shape:18} {one.ratio:.2f}{interval}")
    for line in [*found.advice(), *not_quiet(found.taints)]:
        console.tell(line)

"""`glyphpress demo`: the main job on the built-in digits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from toolchain.cli import console, options

if TYPE_CHECKING:
    from toolchain.core.context import RunContext


@click.command()
@click.option("--out", type=options.FOLDER, default="demo-out", show_default=True, help="Folder for the results.")
@options.run_options(seed=True, threads=0, force=True)
@options.json_option
def demo(*, out: Path, context: RunContext, as_json: bool) -> None:
    """Train a small model on real handwritten digits, press it three ways, and judge every file.

    \b
    Example:
      glyphpress demo --out demo-out
    """
    from toolchain.commands.demo import MARGIN
    from toolchain.commands.demo import demo as run
    from toolchain.core.quantities import points_text
    from toolchain.gate.gate import raise_for
    from toolchain.report.table import show

    report = run(out, context)
    if as_json:
        console.emit("demo", {"out": str(out), "report": report.to_dict()})
    else:
        show(report, console.out())
        if {row.format for row in report.rows} == {"onnx"}:
            console.tell("TFLite was left out: litert-torch has no wheels for this machine; press on x86-64 for it")
        console.tell(
            f"margin: {points_text(MARGIN, 0)} pp, since {report.dataset.images} test images cannot decide 0.3 pp "
            "(that takes EMNIST's thousands: press cnn-small --data emnist:balanced)"
        )
        console.tell(f"report: {out / 'report.md'}")
    report.raise_unless_complete()
    raise_for(report.verdicts)

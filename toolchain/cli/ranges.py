"""`glyphpress ranges`: what calibration found, as a table and as a picture."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from toolchain.cli import console, options


@click.command()
@click.argument("file", type=options.FILE)
@click.option("-o", "--output", type=options.FILE, help="A picture (.svg): histogram and range of every tensor.")
@options.force_option
@options.json_option
def ranges(file: Path, output: Path | None, force: bool, as_json: bool) -> None:
    """Show the ranges that `quantize --save-ranges` kept, and draw them.

    \b
    Example:
      glyphpress ranges cnn.ranges.json -o ranges.svg
    """
    from toolchain.report.ranges import ranges_picture, ranges_text

    kept = ranges_picture(file, output, force=force)
    if as_json:
        console.emit("ranges", kept.model_dump(mode="json", exclude={"schema_"}))
    else:
        click.echo(ranges_text(kept))

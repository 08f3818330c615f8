"""`glyphpress read`: what a picture of handwriting says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from toolchain.cli import complete, console, options, values

if TYPE_CHECKING:
    from toolchain.commands.read import Readings
    from toolchain.core.context import RunContext

_TOP = values.Whole(1, 1000)


@click.command()
@click.argument(
    "pictures", metavar="IMAGE...", nargs=-1, required=True, type=values.FILE, shell_complete=complete.PICTURE
)
@click.option(
    "--artifact",
    metavar="ARTIFACT",
    shell_complete=complete.READER,
    help="Model file to read with, .onnx or .tflite, or a model that ships: cnn-small, cnn-deep. Default: cnn-deep.",
)
@options.target_option
@click.option(
    "--rotate",
    type=values.Choice(["0", "90", "180", "270"]),
    default="0",
    show_default=True,
    help="Turn the picture clockwise by so many degrees first.",
)
@click.option(
    "--classes",
    type=values.CLASSES,
    metavar="CLASSES",
    shell_complete=complete.KINDS,
    help="Answer with these classes only, such as 0-9 or A-Za-z.",
)
@click.option("--alone", is_flag=True, help="Read every character alone, so that an O in a word may become a 0.")
@click.option(
    "--top", type=_TOP, default=3, show_default=True, help="Best answers of each character in the output of --json."
)
@click.option(
    "-o",
    "--output",
    type=values.OUTPUT_FILE,
    help="Write the picture with boxes and readings to this .png (one IMAGE).",
)
@click.option(
    "--out", type=values.OUTPUT_FOLDER, help="Write such a picture of each IMAGE, NAME.overlay.png, to this folder."
)
@options.run_options(threads=0, force=True)
@options.json_option
def read(
    *,
    pictures: tuple[Path, ...],
    artifact: str | None,
    target: str | None,
    rotate: str,
    classes: tuple[str, ...] | None,
    alone: bool,
    top: int,
    output: Path | None,
    out: Path | None,
    context: RunContext,
    as_json: bool,
) -> None:
    """Read pictures of handwriting: a word, a line or a page each, with any model file of a press.

    The picture is cut into characters, each is read as a glyph, and the text is printed, with the picture's name before
    each line if there are several. One that cannot be read, such as a blank one, is named on stderr, and the exit code
    is 3; the others are read. Letters that touch are not cut: it is for printed hand, not for joined writing. A
    character between letters is read as a letter where the model hardly prefers a digit, and the reverse.

    \b
    Example:
      glyphpress read note.png
      glyphpress read note.png --artifact cnn-small.static-int8.tflite -o boxes.png
      glyphpress read code1.png code2.png --classes 0-9 --json
    """
    from toolchain.commands.read import read_pictures
    from toolchain.evaluation.reading import ReadSettings
    from toolchain.report.overlay import save_overlay

    overlays = _overlays(pictures, output, out, force=context.force)
    settings = ReadSettings(int(rotate), top, classes or (), alone)
    readings = read_pictures(pictures, artifact, target=target, settings=settings, context=context)
    if as_json:
        console.emit("read", readings.to_dict())
    else:
        _show(readings, pictures)
    # Last, so that a picture that cannot be written costs no reading.
    for reading in readings.pictures:
        if reading.path in overlays:
            save_overlay(reading, overlays[reading.path], force=context.force)
    readings.raise_unless_all()


def _show(readings: Readings, pictures: tuple[Path, ...]) -> None:
    """Print the readings, and why a picture has none, in the order in which the pictures were given."""
    by_path, reasons = {reading.path: reading for reading in readings.pictures}, dict(readings.unread)
    for path in pictures:
        if path not in by_path:
            console.warn(reasons[path])
            continue
        name = f"{path}: " if len(pictures) > 1 else ""
        for line in by_path[path].text.split("\n"):
            console.tell(f"{name}{line}")
        for note in by_path[path].notes:
            console.warn(note)


def _overlays(pictures: tuple[Path, ...], output: Path | None, out: Path | None, *, force: bool) -> dict[Path, Path]:
    """Return picture -> overlay to write, none without the options; raises UsageProblem where one cannot."""
    from toolchain.core.errors import UsageProblem
    from toolchain.core.files import refuse_source, refuse_unfit

    if output and out:
        raise UsageProblem("--output is for one picture and --out for any number; give one of them")
    if output and len(pictures) > 1:
        raise UsageProblem(f"--output takes one picture, not {len(pictures)}; --out DIR takes them all")
    names = [f"{picture.stem}.overlay.png" for picture in pictures] if out else []
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageProblem(f"two pictures would be written to {twice}; read them one by one with --output")
    overlays = [out / name for name in names] if out else [output] if output else []
    for overlay in overlays:
        for picture in pictures:
            refuse_source(overlay, picture)
        refuse_unfit(overlay, ".png", force=force)
    return dict(zip(pictures, overlays, strict=False))

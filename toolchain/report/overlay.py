"""A picture of handwriting with a box around every character and what it was read as."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from targets.host.text import one_line
from toolchain.core.files import whole_file
from toolchain.evaluation.reading import ReadCharacter, Reading

_BLUE, _ORANGE, _GRAY = (0, 90, 200), (200, 80, 0), (130, 130, 130)
_SURE = 0.5
_WIDE = 900
"""Smaller pictures are enlarged, so that what was read can be read."""
_LEAST, _MOST = 11, 40
"""Height of the letters in pixels."""


def overlay(reading: Reading) -> Image.Image:
    """Return the picture in RGB: blue where the model was at least half sure, orange where not, gray for marks.

    What was read stands below each box, in a band that each line gets under itself where there is room.
    """
    gray = reading.writing.gray
    scale = max(1, min(4, _WIDE // max(gray.shape)))
    tall = float(np.median([each.box[3] - each.box[1] for each in reading.characters])) * scale
    size = round(min(max(tall * 0.45, _LEAST), _MOST))
    margin = size + 6
    picture = Image.fromarray(gray).resize((gray.shape[1] * scale, gray.shape[0] * scale), Image.Resampling.BICUBIC)
    border = int(np.median(gray[[0, -1]]))
    canvas = Image.new("RGB", (picture.width, picture.height + margin), (border, border, border))
    canvas.paste(picture.convert("RGB"), (0, 0))
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size)
    for character in reading.characters:
        left, top, right, bottom = (side * scale for side in character.box)
        colour = _colour(character)
        pen.rectangle((left - 1, top - 1, right, bottom), outline=colour, width=max(1, size // 12))
        where = ((left + right) / 2, bottom + 2)
        # On paper of any shade: bright letters with a dark edge, or the reverse.
        edge = "white" if reading.writing.paper == "light" else "black"
        pen.text(where, one_line(character.read), colour, font, "ma", stroke_width=max(1, size // 10), stroke_fill=edge)
    return canvas


def save_overlay(reading: Reading, path: Path, *, force: bool = False) -> None:
    """Write the overlay as a PNG, whole or not at all; raises UsageProblem over an existing file."""
    with whole_file(path, force=force) as part:
        overlay(reading).save(part, "PNG", optimize=True)


def _colour(character: ReadCharacter) -> tuple[int, int, int]:
    if not character.read:
        return _GRAY
    return _BLUE if character.answers[0].confidence >= _SURE else _ORANGE

"""Gallery: the characters whose answer changed, as tiles of one picture and as rows of a table.

A word and the form of the frame say whether an answer was lost or gained, not its colour alone; the colours are of
M. Okabe and K. Ito's palette, which colour-blind people can tell apart (https://jfly.uni-koeln.de/color).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from calibration.dataset import SIDE
from toolchain.gate.evidence import Evidence

Kind = Literal["lost", "gained", "other"]
MOST = 60
"""How many characters are shown of a candidate."""

_INK, _PAPER, _QUIET = "#1a1a1a", "#ffffff", "#595959"
_COLOURS: dict[Kind, str] = {"lost": "#D55E00", "gained": "#0072B2", "other": "#8c8c8c"}
_MEANING: dict[Kind, str] = {
    "lost": "lost: only the baseline is right",
    "gained": "gained: only the candidate is right",
    "other": "other: both are wrong",
}
_SCALE, _FRAME, _GAP, _COLUMNS = 3, 5, 14, 10
_GLYPH = SIDE * _SCALE
_TILE = _GLYPH + 2 * _FRAME
_LINE = 17
_PITCH = (_TILE + _GAP, _TILE + 3 * _LINE + _GAP)
_WIDTH = _COLUMNS * _PITCH[0] + _GAP


@dataclass(frozen=True, eq=False)
class Flip:
    """A character that two files read differently: its index among the test images, label and both answers.

    confidence: the probability that each answer was given with. picture: uint8 [28, 28], white ink on black, None where
    the images were not at hand.
    """

    image: int
    label: str
    before: str
    after: str
    confidence: tuple[float, float]
    kind: Kind
    picture: NDArray[np.uint8] | None = None


def flips(evidence: Evidence, most: int = MOST) -> tuple[Flip, ...]:
    """Return up to `most` characters whose answer changed: the lost ones first, then other, then gained ones."""
    pairs, kept = evidence.pairs, evidence.flipped
    if kept is not None:
        indices, pictures = kept.indices, list(kept.images)
    else:
        changed = np.flatnonzero(pairs.flipped)
        rank = np.where(pairs.lost[changed], 0, np.where(pairs.gained[changed], 2, 1))
        indices = changed[np.argsort(rank, kind="stable")]
        pictures = [None] * len(indices)
    return tuple(_flip(evidence, int(k), picture) for k, picture in zip(indices[:most], pictures[:most], strict=True))


def _flip(evidence: Evidence, k: int, picture: NDArray[np.uint8] | None) -> Flip:
    pairs = evidence.pairs
    label, before, after = (pairs.classes[int(one[k])] for one in (pairs.labels, pairs.before, pairs.after))
    kind: Kind = "lost" if pairs.lost[k] else "gained" if pairs.gained[k] else "other"
    confidence = float(pairs.before_confidence[k]), float(pairs.after_confidence[k])
    return Flip(k, label, before, after, confidence, kind, picture)


def contact_sheet(sheets: Sequence[tuple[str, Sequence[Flip]]]) -> Image.Image:
    """Return one picture of all tiles, a title above each candidate's; flips without a picture have no tile."""
    shown = [(title, [flip for flip in tiles if flip.picture is not None]) for title, tiles in sheets]
    heights = [3 * _LINE + -(-len(tiles) // _COLUMNS) * _PITCH[1] for _, tiles in shown]
    sheet = Image.new("RGB", (_WIDTH, sum(heights) + _GAP), _PAPER)
    draw, top = ImageDraw.Draw(sheet), _GAP
    for (title, tiles), height in zip(shown, heights, strict=True):
        _head(draw, title, top)
        for index, tile in enumerate(tiles):
            row, column = divmod(index, _COLUMNS)
            corner = _GAP + column * _PITCH[0], top + 3 * _LINE + row * _PITCH[1]
            _tile(sheet, draw, tile, *corner)
        top += height
    return sheet


def _head(draw: ImageDraw.ImageDraw, title: str, top: int) -> None:
    """Write the title, and below it what the frames and the lines of a tile mean."""
    draw.text((_GAP, top), _fitting(title, _WIDTH - 2 * _GAP, 16), _INK, _font(16))
    left, line = _GAP, top + _LINE + 4
    for kind, meaning in _MEANING.items():
        _frame(draw, (left, line + 2, left + 22, line + 14), kind, 3)
        draw.text((left + 29, line), meaning, _INK, _font(13))
        left += 29 + round(_font(13).getlength(meaning)) + 24
    draw.text((left, line), "below: label; baseline's answer > candidate's; image", _QUIET, _font(13))


def _tile(sheet: Image.Image, draw: ImageDraw.ImageDraw, flip: Flip, left: int, top: int) -> None:
    # As on paper, dark on light, each pixel a square: nothing is smoothed away.
    ink = Image.fromarray(255 - np.asarray(flip.picture)).resize((_GLYPH, _GLYPH), Image.Resampling.NEAREST)
    sheet.paste(ink, (left + _FRAME, top + _FRAME))
    _frame(draw, (left, top, left + _TILE - 1, top + _TILE - 1), flip.kind, _FRAME)
    middle, line = left + _TILE / 2, top + _TILE + 2
    draw.text((middle, line), _fitting(f"is {_glyphs(flip.label)}", _PITCH[0] - 4, 14), _INK, _font(14), anchor="ma")
    _answers(draw, flip, middle, line + _LINE)
    draw.text((middle, line + 2 * _LINE), f"{flip.kind} #{flip.image}", _QUIET, _font(12), anchor="ma")


def _answers(draw: ImageDraw.ImageDraw, flip: Flip, middle: float, line: float) -> None:
    """Write the baseline's answer, an arrow (which the font does not have) and the candidate's."""
    arrow = 18
    room = (_PITCH[0] - arrow) / 2 - 6
    for edge, answer, anchor in ((-arrow / 2 - 5, flip.before, "ra"), (arrow / 2 + 6, flip.after, "la")):
        draw.text((middle + edge, line), _fitting(_glyphs(answer), room, 14), _INK, _font(14), anchor=anchor)
    y, tip = line + 9, middle + arrow / 2
    draw.line((middle - arrow / 2, y, tip, y), _INK, 2)
    draw.polygon(((tip + 1, y), (tip - 6, y - 4), (tip - 6, y + 4)), _INK)


def _frame(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], kind: Kind, width: int) -> None:
    """Draw a frame: whole and thick for what was lost, only its corners for what was gained, otherwise a thin line."""
    draw.rectangle(box, outline=_COLOURS[kind], width=1 if kind == "other" else width)
    if kind == "gained":
        left, top, right, bottom = box
        x, y = (right - left) // 4, (bottom - top) // 4
        for side in (top, bottom - width + 1):
            draw.rectangle((left + x, side, right - x, side + width - 1), _PAPER)
        for side in (left, right - width + 1):
            draw.rectangle((side, top + y, side + width - 1, bottom - y), _PAPER)


def _fitting(text: str, width: float, size: int) -> str:
    """Return a text, or as much of its beginning as fits into `width` pixels."""
    text = _glyphs(text)
    if _font(size).getlength(text) <= width:
        return text
    while text and _font(size).getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _glyphs(text: str) -> str:
    """Return a text with characters that the font lacks, or a text of spaces alone, as numbers: U+00E9."""
    if not text.strip():
        return " ".join(f"U+{ord(character):04X}" for character in text) or "nothing"
    return "".join(character if _drawable(character) else f"U+{ord(character):04X}" for character in text)


@cache
def _drawable(character: str) -> bool:
    font = _font(16)
    return character.isascii() or bytes(font.getmask(character)) != bytes(font.getmask("\uffff"))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the font that comes with Pillow."""
    return ImageFont.load_default(size)

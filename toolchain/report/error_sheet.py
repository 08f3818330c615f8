"""A sheet of the characters that a file reads wrongly: the surest mistakes, then the most confused pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from calibration.dataset import SIDE, Images, ImageSource
from targets.host.text import one_line
from toolchain.core.files import whole_file
from toolchain.core.quantities import percent_text
from toolchain.evaluation.evaluate import Evaluation
from toolchain.evaluation.metrics import Metrics
from toolchain.evaluation.mistakes import Mistake, mistakes_of

_INK, _QUIET, _PAPER, _LINE = (26, 26, 26), (89, 89, 89), (255, 255, 255), (208, 208, 208)
_WRONG = (179, 71, 0)
_COLUMNS, _ENLARGED, _GAP, _EDGE = 10, 3, 14, 24
_GLYPH = SIDE * _ENLARGED
_CELL = _GLYPH + _GAP
_TALL = _GLYPH + 44
"""Height of a mistake: its picture and two lines of text."""
_WIDTH = 2 * _EDGE + _COLUMNS * _CELL - _GAP
_PAIRS, _EXAMPLES = 8, 8


@dataclass(frozen=True)
class _Row:
    """A confused pair with examples."""

    text: str
    share: str
    examples: tuple[Mistake, ...]


def save_error_sheet(
    path: Path,
    evaluation: Evaluation,
    metrics: Metrics,
    mistakes: Sequence[Mistake],
    images: ImageSource,
    *,
    force: bool = False,
) -> None:
    """Write the sheet as a PNG, whole or not at all.

    metrics: of the evaluation. mistakes: to be shown first (`surest_mistakes`). images: those of the evaluation, in its
    order. Raises UsageProblem over an existing file.
    """
    with whole_file(path, force=force) as part:
        error_sheet(evaluation, metrics, mistakes, images).save(part, "PNG", optimize=True)


def error_sheet(
    evaluation: Evaluation, metrics: Metrics, mistakes: Sequence[Mistake], images: ImageSource
) -> Image.Image:
    """Return the sheet in RGB."""
    totals = {row.label: row.images for row in metrics.per_class}
    pairs = [
        _Row(
            f"{one_line(pair.truth)} read as {one_line(pair.read)}",
            f"{pair.count:,} of {totals[pair.truth]:,} ({percent_text(pair.count / totals[pair.truth])})",
            mistakes_of(evaluation, pair.truth, pair.read, _EXAMPLES),
        )
        for pair in metrics.confusions[:_PAIRS]
    ]
    top, lines = 96, -(-len(mistakes) // _COLUMNS)
    below = top + lines * _TALL
    height = below + (48 + len(pairs) * _CELL if pairs else 0) + _EDGE
    sheet = Image.new("RGB", (_WIDTH, height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    _text(pen, (_EDGE, 18), _fitted(f"Wrong answers of {one_line(evaluation.artifact)}", 20, _WIDTH - 2 * _EDGE), 20)
    wrong = metrics.images - metrics.right
    facts = f"{wrong:,} of {metrics.images:,} images of {one_line(evaluation.origin)} are read wrongly"
    _text(pen, (_EDGE, 46), _fitted(f"{facts}: accuracy {percent_text(metrics.accuracy)}.", 14, _WIDTH - 2 * _EDGE), 14)
    which = f"All {len(mistakes)}" if len(mistakes) == wrong else f"The {len(mistakes)} of which the model was surest"
    shown = f"{which}: truth and answer, the probability of each below."
    _text(pen, (_EDGE, 68), shown if mistakes else "No answer is wrong.", 14, _QUIET)
    glyphs = _enlarged(images, [*mistakes, *(mistake for pair in pairs for mistake in pair.examples)])
    for number, mistake in enumerate(mistakes):
        row, column = divmod(number, _COLUMNS)
        _mistake(sheet, pen, (_EDGE + column * _CELL, top + row * _TALL), mistake, glyphs[mistake.index])
    if pairs:
        pen.line((_EDGE, below, _WIDTH - _EDGE, below), _LINE)
        _text(pen, (_EDGE, below + 12), "Most confused pairs, with the surest examples of each", 14, _QUIET)
    for number, pair in enumerate(pairs):
        y = below + 44 + number * _CELL
        _text(pen, (_EDGE, y + 26), _fitted(pair.text, 16, 2 * _CELL - _GAP), 16)
        _text(pen, (_EDGE, y + 50), pair.share, 13, _QUIET)
        for column, mistake in enumerate(pair.examples, 2):
            sheet.paste(glyphs[mistake.index], (_EDGE + column * _CELL, y))
    return sheet


def _enlarged(images: ImageSource, mistakes: Sequence[Mistake]) -> dict[int, Image.Image]:
    """Return the picture of each mistake, by its index: dark on white, every pixel a small square."""
    indices = np.unique(np.array([mistake.index for mistake in mistakes], np.int64))
    chosen: Images = images[indices]
    size = (_GLYPH, _GLYPH)
    return {
        int(index): Image.fromarray(255 - glyph).resize(size, Image.Resampling.NEAREST).convert("RGB")
        for index, glyph in zip(indices, chosen, strict=True)
    }


def _mistake(
    sheet: Image.Image, pen: ImageDraw.ImageDraw, corner: tuple[int, int], mistake: Mistake, glyph: Image.Image
) -> None:
    x, y = corner
    sheet.paste(glyph, corner)
    pen.rectangle((x - 1, y - 1, x + _GLYPH, y + _GLYPH), outline=_LINE)
    half = _GLYPH // 2
    truth, read = (_fitted(one_line(name), 15, half - 8) for name in (mistake.truth, mistake.read))
    for middle, name, share, colour in (
        (x + half // 2, truth, mistake.truth_confidence, _INK),
        (x + half + half // 2, read, mistake.confidence, _WRONG),
    ):
        _text(pen, (middle, y + _GLYPH + 3), name, 15, colour, middle=True)
        _text(pen, (middle, y + _GLYPH + 22), chance_text(share), 11, colour, middle=True)
    _text(pen, (x + half, y + _GLYPH + 3), ">", 13, _QUIET, middle=True)


def chance_text(share: float) -> str:
    """Return a probability in whole percent; one that is not certain is not shown as 0 or 100 %."""
    if 0 < share < 0.005:
        return "<1%"
    return ">99%" if 0.995 <= share < 1 else f"{share:.0%}"


def _fitted(text: str, size: int, width: float) -> str:
    """Return a text that fits into a width, cut with an ellipsis where it must be."""
    font = ImageFont.load_default(size)
    if font.getlength(text) <= width:
        return text
    while len(text) > 1 and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."


def _text(
    pen: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    size: int,
    colour: tuple[int, int, int] = _INK,
    *,
    middle: bool = False,
) -> None:
    pen.text(place, text, colour, ImageFont.load_default(size), "ma" if middle else "la")

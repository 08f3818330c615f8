"""Cuts a picture of handwriting (a word, a line, a page) into characters, each prepared as a glyph.

Connected strokes are pieces. Pieces become lines by their heights above the slanted baseline, and characters by the
rules in `_Line`: what stands above or across another belongs to it, and so does a fragment with hardly a gap.
docs/design/words.md says what the rules can tell apart and what they cannot.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.dataset import SIDE, Images
from calibration.errors import CorruptData
from calibration.glyph import Gray, glyph, gray_levels
from calibration.ink import Paper, find_ink
from calibration.picture import MOST_PIXELS, open_picture

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels of the picture; right and bottom are exclusive."""
TURNS = (0, 90, 180, 270)
MOST_PIECES = 20_000
"""A page of writing has some 3,000."""

_RULE = 5
"""Heights of a character over which something thin is a ruled line."""
_THIN = 40
"""Times that the length of something thin is its width."""
_DUST = 0.006
"""Specks with fewer pixels than this share of a square of the characters' height are dirt; the dot of an i has 0.01."""
_MAIN = 0.35
"""Share of the height from which a piece may be a character of its own; smaller ones are dots, bars and fragments."""
_LINE = 0.6
"""Heights between the centres of two neighbours from which on they are of two lines."""
_ACROSS = 0.6
"""Share of the narrower piece that lies over or under another, from which on the two are one character."""
_NEAR = 0.06
"""Heights between two fragments of one character, side by side."""
_DOT = 0.3
"""Heights that a dot may lie to the side of its stem."""
_STACK = 0.7
"""Heights between the parts of `=` and `:`, and between a stem and its dot."""
_SPACE = 0.5
"""Heights from which on a gap may stand between words."""
_WIDER = 2.0
"""How many times wider than the usual gap of its line a gap between words is."""
_MARK = 0.3
"""Height of the largest full stop, comma or dash."""
_MARGIN = 3
"""Pixels around a character in which its strokes may fade."""
_JOINED = 1.6
"""Width, in heights, from which on a piece is likely to be letters that touch."""


@dataclass(frozen=True)
class Character:
    """One character of a picture.

    glyph: uint8 [28, 28], as `calibration.glyph` prepares it. line: number of its line, from 0. space: whether a gap
    between words stands before it. mark: whether it is as small as a full stop or a dash. joined: whether it is so wide
    that it is likely to be several letters that touch.
    """

    box: Box
    glyph: Gray = field(repr=False)
    line: int
    space: bool
    mark: bool
    joined: bool


@dataclass(frozen=True)
class Writing:
    """A picture that was cut: its gray levels as it stood when it was cut, and its characters in order of reading.

    rules: number of ruled lines and frames, which are left out.
    """

    gray: Gray = field(repr=False)
    paper: Paper
    characters: tuple[Character, ...]
    rules: int = 0

    @property
    def glyphs(self) -> Images:
        """The glyphs of all characters, uint8 [N, 28, 28]."""
        return np.stack([character.glyph for character in self.characters])

    def text(self, names: Sequence[str]) -> str:
        """Return what is written, with spaces and line breaks. names: the reading of each character, '' for none."""
        lines: dict[int, list[str]] = {}
        for character, name in zip(self.characters, names, strict=True):
            # The space before a mark that is left out belongs to what follows it.
            lines.setdefault(character.line, []).append(" " * character.space + name)
        return "\n".join(" ".join("".join(parts).split()) for _, parts in sorted(lines.items()))


def cut_file(path: Path, turn: int = 0) -> Writing:
    """Cut a picture file, turned clockwise by 0, 90, 180 or 270 degrees first; its EXIF orientation is obeyed.

    Raises DataNotFound and, with the file, CorruptData: not one still picture of at most MOST_PIXELS, or as `cut`.
    """
    advice = (
        f"too many, at most {MOST_PIXELS:,} are read; scan the page at 300 dpi, or make it smaller or crop it "
        "(`magick FILE -resize 50% smaller.png`)"
    )
    with open_picture(path, too_large=advice, still=True) as picture:
        gray = gray_levels(picture, largest=MOST_PIXELS)
        return cut(np.ascontiguousarray(np.rot90(gray, -turn // 90)))


def cut(gray: Gray) -> Writing:
    """Cut a picture, uint8 [H, W], into characters. Raises CorruptData when it is blank, noise or too crowded."""
    ink = find_ink(gray)
    labels, pieces = _pieces(ink.mask)
    height = _height(pieces)
    written = [piece for piece in pieces if not (piece.is_thin and piece.length > _RULE * height)]
    if not written:
        raise CorruptData("there are only long thin lines in it, no writing; name a picture with writing")
    lines = _lines(written, height)
    characters: list[Character] = []
    for number, line in enumerate(lines):
        spaces = _spaces(line)
        for parts, space in zip(line.characters, spaces, strict=True):
            box = _around(parts)
            tall, wide = box[3] - box[1], box[2] - box[0]
            characters.append(
                Character(
                    box,
                    glyph(_alone(ink.bright, labels, box, {part.label for part in parts})),
                    number,
                    space and parts is not line.characters[0],
                    max(tall, min(tall, wide)) < _MARK * line.height,
                    wide > _JOINED * max(line.height, tall),
                )
            )
    return Writing(gray, ink.paper, tuple(characters), len(pieces) - len(written))


@dataclass(frozen=True)
class _Piece:
    """Connected ink. label: its number in the picture of labels. area: its pixels."""

    label: int
    left: int
    top: int
    right: int
    bottom: int
    area: int

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def centre(self) -> tuple[float, float]:
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    @property
    def length(self) -> int:
        return max(self.right - self.left, self.height)

    @property
    def is_thin(self) -> bool:
        """Whether it is as thin as a ruled line or a frame; its width is its area over its length."""
        return self.length**2 > _THIN * self.area


def _pieces(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], list[_Piece]]:
    """Return a picture of labels, 0 where there is none, and the connected pieces of ink without dirt."""
    from scipy import ndimage

    labels, count = ndimage.label(mask, np.ones((3, 3), bool))
    areas = np.bincount(labels.reshape(-1), minlength=count + 1)
    wanted = np.flatnonzero(areas[1:] >= 3) + 1
    _refuse_crowd(len(wanted), 10 * MOST_PIECES)
    numbers = np.zeros(count + 1, np.int32)
    numbers[wanted] = np.arange(1, len(wanted) + 1)
    labels = numbers[labels]
    pieces = [
        _Piece(number, columns.start, rows.start, columns.stop, rows.stop, int(areas[wanted[number - 1]]))
        for number, (rows, columns) in enumerate(ndimage.find_objects(labels), 1)
    ]
    if not pieces:
        raise CorruptData("there is no writing in it, only specks; scan it again at a higher resolution")
    least = _DUST * _height(pieces) ** 2
    pieces = [piece for piece in pieces if piece.area >= least]
    _refuse_crowd(len(pieces), MOST_PIECES)
    return labels, pieces


def _refuse_crowd(count: int, most: int) -> None:
    if count > most:
        raise CorruptData(f"{count:,} pieces of ink are more than {most:,}, which no page of writing has; crop it")


def _height(pieces: Sequence[_Piece]) -> float:
    """Return the height of a usual character: specks, however many, rules and a few large pieces do not count."""
    pieces = [piece for piece in pieces if not piece.is_thin] or pieces
    heights, areas = (np.array(values) for values in zip(*((each.height, each.area) for each in pieces), strict=True))
    order = np.argsort(heights, kind="stable")
    half = int(np.searchsorted(np.cumsum(areas[order]), areas.sum() / 2))
    typical = heights[order[half]]
    return float(np.median(heights[heights >= typical / 4]))


@dataclass
class _Line:
    """The pieces of one line become characters, from left to right.

    height: of its tall characters.
    """

    height: float
    characters: list[list[_Piece]]

    @classmethod
    def of(cls, pieces: Sequence[_Piece], usual: float) -> _Line:
        """Put pieces together by the gaps and by what stands above what. usual: the height in the whole picture."""
        main = [piece for piece in pieces if piece.height >= _MAIN * usual] or list(pieces)
        height = float(np.percentile([piece.height for piece in main], 75))
        main = [piece for piece in pieces if piece.height >= _MAIN * height]
        small = [piece for piece in pieces if piece.height < _MAIN * height]
        line = cls(height, [])
        for piece in sorted(main, key=lambda piece: piece.left):
            line._add(piece)
        marks: list[list[_Piece]] = []
        # The large ones first: a dot may stand above a bar.
        for piece in sorted(small, key=lambda piece: -piece.area):
            near = min(line.characters + marks, key=lambda parts: line._distance(piece, parts), default=[])
            if near and line._distance(piece, near) < np.inf:
                near.append(piece)
            else:
                marks.append([piece])
        line.characters = sorted(line.characters + marks, key=lambda parts: sum(_around(parts)[::2]))
        return line

    def _add(self, piece: _Piece) -> None:
        """Add the next large piece to one of the last characters, or as a new one."""
        for parts in reversed(self.characters[-3:]):
            left, top, right, bottom = _around(parts)
            across = min(right, piece.right) - max(left, piece.left)
            fragment = min(piece.height, bottom - top) < _LINE * self.height
            slim = max(right, piece.right) - left < self.height
            if across >= _ACROSS * min(right - left, piece.right - piece.left) or (
                fragment and slim and -_NEAR * self.height <= across <= 0
            ):
                parts.append(piece)
                return
        self.characters.append([piece])

    def _distance(self, piece: _Piece, parts: Sequence[_Piece]) -> float:
        """Return how far a small piece is from a character that it may belong to, in heights; infinite if it does not.

        It does where it lies above, below or in the character, where it is a dot above and a little beside it, and
        where there is hardly a gap.
        """
        left, top, right, bottom = _around(parts)
        aside = max(left - piece.right, piece.left - right, 0) / self.height
        away = max(top - piece.bottom, piece.top - bottom, 0) / self.height
        across = min(right, piece.right) - max(left, piece.left)
        stands = across >= 0.5 * min(right - left, piece.right - piece.left) and away <= _STACK
        narrow = right - left < _MAIN * self.height
        dots = aside <= _DOT and away <= _STACK and piece.centre[1] < top + (bottom - top) / 4
        if stands or dots or max(aside, away) <= _NEAR:
            # A dot between a stem and the next letter is the stem's.
            return aside + away + 0.25 * (not narrow)
        return float("inf")


def _around(parts: Iterable[_Piece]) -> Box:
    parts = list(parts)
    return (
        min(part.left for part in parts),
        min(part.top for part in parts),
        max(part.right for part in parts),
        max(part.bottom for part in parts),
    )


def _lines(pieces: Sequence[_Piece], height: float) -> list[_Line]:
    """Return the lines from top to bottom."""
    main = [piece for piece in pieces if piece.height >= _MAIN * height]
    rows = _chains(main, height, 0.0)
    slope = _slope(rows)
    rows = _chains(main, height, slope)
    centres = np.array([piece.centre for piece in main])
    halves = np.array([(piece.right - piece.left, piece.height) for piece in main]) / 2
    owner = {piece.label: row for row in rows for piece in row}
    for piece in pieces:
        if piece.label not in owner:
            half = np.array([piece.right - piece.left, piece.height]) / 2
            gaps = np.maximum(np.abs(centres - piece.centre) - halves - half, 0)
            owner[main[int(np.argmin((gaps**2).sum(1)))].label].append(piece)
    rows.sort(key=lambda row: float(np.median([_level(piece, slope) for piece in row])))
    return [_Line.of(row, height) for row in rows]


def _level(piece: _Piece, slope: float) -> float:
    x, y = piece.centre
    return y - slope * x


def _chains(pieces: Sequence[_Piece], height: float, slope: float) -> list[list[_Piece]]:
    """Follow each line from left to right: a piece belongs to the line whose last pieces lie at its level."""
    rows: list[list[_Piece]] = []
    levels: list[float] = []
    for piece in sorted(pieces, key=lambda piece: piece.left):
        level = _level(piece, slope)
        reach = _LINE * max(height, piece.height)
        near = int(np.argmin(np.abs(np.array(levels) - level))) if levels else -1
        if near >= 0 and (abs(levels[near] - level) <= reach or _beside(rows[near][-1], piece, height)):
            rows[near].append(piece)
            levels[near] += (level - levels[near]) / 2
        else:
            rows.append([piece])
            levels.append(level)
    return rows


def _beside(last: _Piece, piece: _Piece, height: float) -> bool:
    """Return whether a piece is of the line of the last one though its centre is not: a slant, or a broken letter."""
    down = min(last.bottom, piece.bottom) - max(last.top, piece.top)
    across = min(last.right, piece.right) - max(last.left, piece.left)
    follows = down >= min(last.height, piece.height) / 4 and across >= -height
    both = max(last.bottom, piece.bottom) - min(last.top, piece.top)
    broken = across >= _ACROSS * min(last.right - last.left, piece.right - piece.left) and both <= 1.7 * height
    return follows or (broken and down >= -max(_NEAR * height, 1.0))


def _slope(rows: Sequence[Sequence[_Piece]]) -> float:
    """Return by how much the lines fall per pixel, from those of five pieces or more; 0 where there are none."""
    slopes = []
    for row in rows:
        # Twice the centres: whole numbers, whose sums are exact here and in words.mjs.
        x = np.array([piece.left + piece.right for piece in row])
        y = np.array([piece.top + piece.bottom for piece in row])
        scatter = len(row) * int(x @ x) - int(x.sum()) ** 2
        if len(row) >= 5 and scatter > 0:
            slopes.append((len(row) * int(x @ y) - int(x.sum()) * int(y.sum())) / scatter)
    return float(np.median(slopes)) if slopes else 0.0


def _spaces(line: _Line) -> list[bool]:
    """Return whether a gap between words stands before each character."""
    boxes = [_around(parts) for parts in line.characters]
    ends = np.maximum.accumulate([box[2] for box in boxes])
    gaps = np.array([box[0] - end for box, end in zip(boxes[1:], ends, strict=False)]) / line.height
    least = _least_space(np.clip(gaps, 0, 1))
    return [False, *(bool(gap >= least) for gap in gaps)]


def _least_space(gaps: NDArray[np.float64]) -> float:
    """Return the smallest gap between words, in heights: above the widest step among all gaps, if it is wide enough."""
    if len(gaps) < 3:
        return 1.2 * _SPACE
    gaps = np.sort(gaps)
    step = int(np.argmax(np.diff(gaps)))
    space = float(gaps[step + 1])
    wide = space >= _SPACE and space >= _WIDER * float(np.median(gaps[: step + 1]))
    return space if wide else (1.0 if gaps[0] < _SPACE else float("inf"))


def _alone(bright: Gray, labels: NDArray[np.int32], box: Box, own: set[int]) -> Gray:
    """Return a character without its neighbours, and with an empty frame."""
    from scipy import ndimage

    left, top, right, bottom = box
    # A slice that ends outside the picture ends at its edge.
    part = np.s_[max(top - _MARGIN, 0) : bottom + _MARGIN, max(left - _MARGIN, 0) : right + _MARGIN]
    mine = np.isin(labels[part], list(own))
    # The soft edge of a stroke is its own, up to the next stroke.
    near = ndimage.binary_dilation(mine, np.ones((3, 3), bool), iterations=2) & ((labels[part] == 0) | mine)
    alone = np.pad(np.where(near, bright[part], 0).astype(np.uint8), 2)
    # A picture of just the size of a glyph would be taken for one.
    return np.pad(alone, 1) if alone.shape == (SIDE, SIDE) else alone

"""Scanner damage to glyphs: skewed paper, a dirty glass, another pen, in five strengths.

Damage depends on an image's pixels, the kind, the strength and the seed alone: random numbers come from a hash of the
image (SHAKE128, FIPS 202), and the arithmetic uses integers. So a glyph is damaged equally in any batch, order or
subset, on every machine and with every version of numpy.

Kinds and strengths follow ImageNet-C (Hendrycks and Dietterich 2019, arXiv:1903.12261): one kind at a time,
from hardly noticeable (1) to still readable (5).
"""

from __future__ import annotations

import difflib
import hashlib
import math
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from calibration.dataset import SIDE, Images, ImageSource, Labels, chunks
from calibration.errors import UnknownData

STRENGTHS = (1, 2, 3, 4, 5)

_CHUNK = 2048
"""Images that are damaged at once, which limits memory to some tens of megabytes."""
_ONE = 256
"""Fixed point: shares, weights and parts of a pixel are in 256ths."""

Integers = NDArray[np.int64]
Bytes = NDArray[np.uint8]


def damage(images: Images, kind: str, strengths: Integers, seed: int = 0) -> Images:
    """Return uint8 [N, 28, 28]: each upright glyph (bright ink on black) damaged at its own strength.

    images: uint8 [N, 28, 28]. strengths: int64 [N], 1 to 5. Raises UnknownData for another kind or strength, and for
    images that are not glyphs.
    """
    check_kind(kind)
    if images.dtype != np.uint8 or images.shape[1:] != (SIDE, SIDE) or strengths.shape != images.shape[:1]:
        raise UnknownData(
            f"damage takes uint8 glyphs [N, 28, 28] and N strengths, got {images.dtype} {list(images.shape)} and "
            f"{list(strengths.shape)}; give one strength per image"
        )
    check_strengths(np.unique(strengths).tolist())
    damaged = np.empty_like(images)
    for start in range(0, len(images), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        chances = _chances(images[chunk], f"{kind} {seed}", _CHANCES[kind])
        for strength in np.unique(strengths[chunk]):
            at = start + np.flatnonzero(strengths[chunk] == strength)
            damaged[at] = KINDS[kind](images[at], int(strength), chances[at - start])
    return damaged


def strengths_in_turn(
    images: ImageSource, labels: Labels, kind: str, seed: int = 0, strengths: tuple[int, ...] = STRENGTHS
) -> Integers:
    """Return int64 [N], a strength for each image, assigned in turn to the images of each class.

    The order within a class is drawn for each kind from the images' pixels and the seed. So every class has every
    strength equally often, to within one image. Raises UnknownData as `damage` does.
    """
    check_kind(kind)
    check_strengths(strengths)
    salt = f"turn of {kind} {seed}"
    drawn = np.concatenate([_chances(images[part], salt, 8).view(">u8")[:, 0] for part in chunks(len(images))])
    order = np.lexsort((drawn, labels))
    rank = np.empty(len(labels), np.int64)
    rank[order] = np.arange(len(labels)) - np.searchsorted(labels[order], labels[order])
    return np.array(strengths, np.int64)[rank % len(strengths)]


def check_kind(kind: str) -> None:
    """Raise UnknownData for an unknown kind of damage."""
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=3)
        advice = f"did you mean {', '.join(near)}?" if near else "see [stress] in what `glyphpress gate init` writes"
        raise UnknownData(f"no kind of damage is called '{kind}'; {advice}")


def check_strengths(strengths: tuple[int, ...] | list[int]) -> None:
    """Raise UnknownData for unknown strengths, or none."""
    unknown = [strength for strength in strengths if strength not in STRENGTHS]
    if unknown or not strengths:
        raise UnknownData(
            f"damage has strengths 1 to 5, not {', '.join(map(str, unknown)) or 'none'}; take some of them"
        )


def _chances(images: Images, salt: str, count: int) -> Bytes:
    """Return uint8 [N, count], uniform bytes drawn from the pixels of each image and the salt."""
    start = hashlib.shake_128(salt.encode())
    rows = []
    for pixels in np.ascontiguousarray(images).reshape(len(images), -1):
        drawn = start.copy()
        drawn.update(pixels.data)
        rows.append(drawn.digest(count))
    return np.frombuffer(b"".join(rows), np.uint8).reshape(len(images), count)


def _skew(images: Images, strength: int, chances: Bytes) -> Images:
    """The paper was skewed and pulled unevenly: turned one way, slanted the same way or the other way."""
    angle, slant = (5, 10, 14, 18, 22)[strength - 1], (0.12, 0.22, 0.33, 0.44, 0.55)[strength - 1]
    turned = np.empty_like(images)
    for case in range(4):
        members = chances[:, 0] % 4 == case
        indices, weights = _lookup(angle * (1 - 2 * (case & 1)), slant * (1 - (case & 2)))
        pixels = images[members].reshape(-1, SIDE * SIDE).astype(np.int64)
        pixels = np.concatenate([pixels, np.zeros((len(pixels), 1), np.int64)], axis=1)
        mixed = sum(pixels[:, index] * weight for index, weight in zip(indices, weights, strict=True))
        turned[members] = _rounded(np.asarray(mixed), _ONE * _ONE).reshape(-1, SIDE, SIDE)
    return turned


@cache
def _lookup(degrees: float, slant: float) -> tuple[Integers, Integers]:
    """Return for each pixel of a turned and slanted image its source pixels: int64 [4, 784] indices, bilinear weights.

    Weights are in 65,536ths. Index 784 is the black around the image.
    """
    # Rounded to fixed point first, since machines differ in the last bit of a sine.
    cosine, sine, shear = (
        round(x * 2**16) for x in (math.cos(math.radians(degrees)), math.sin(math.radians(degrees)), slant)
    )
    down, across = np.mgrid[:SIDE, :SIDE].reshape(2, -1) * 2 - (SIDE - 1)  # in half pixels from the middle
    tilted = across * 2**16 + down * shear
    x = (tilted * cosine - (down * sine << 16)) >> 16
    y = (tilted * sine + (down * cosine << 16)) >> 16
    x, y = ((value + ((SIDE - 1) << 16)) >> 9 for value in (x, y))  # 256ths of a pixel from the corner
    indices, weights = [], []
    for dy in (0, 1):
        for dx in (0, 1):
            row, column = (y >> 8) + dy, (x >> 8) + dx
            inside = (row >= 0) & (row < SIDE) & (column >= 0) & (column < SIDE)
            indices.append(np.where(inside, row * SIDE + column, SIDE * SIDE))
            part_y, part_x = (y & 255 if dy else _ONE - (y & 255)), (x & 255 if dx else _ONE - (x & 255))
            weights.append(part_y * part_x)
    return np.array(indices), np.array(weights)


def _blur(images: Images, strength: int, _drawn: Bytes) -> Images:
    """The lens was out of focus."""
    return _smoothed(images, (0.6, 0.8, 1.0, 1.2, 1.4)[strength - 1])


def _smoothed(images: Images, sigma: float) -> Images:
    """Return the images under a Gaussian, sigma in pixels, black around them."""
    reach = math.ceil(3 * sigma)
    taps = [round(_ONE * math.exp(-0.5 * (k / sigma) ** 2)) for k in range(-reach, reach + 1)]
    soft = images.astype(np.int64)
    for axis in (1, 2):
        framed = np.pad(soft, [(0, 0) if k != axis else (reach, reach) for k in range(3)])
        soft = sum(  # type: ignore[assignment]
            tap * (framed[:, k : k + SIDE] if axis == 1 else framed[:, :, k : k + SIDE]) for k, tap in enumerate(taps)
        )
    return _rounded(soft, sum(taps) ** 2)


def _threshold(images: Images, strength: int, chances: Bytes) -> Images:
    """The scanner's threshold for black and white was wrong: too high, so that strokes break, or too low.

    The threshold applies at three times the resolution of the glyph, so its edges keep some gray.
    """
    low, high = (100, 75, 50, 30, 15)[strength - 1], (145, 170, 195, 215, 230)[strength - 1]
    level = np.where(chances[:, 0] % 2, low, high).astype(np.int16)[:, None, None] * 9
    framed = np.pad(images, [(0, 0), (1, 1), (1, 1)]).astype(np.int16)
    ink = np.zeros(images.shape, np.int64)
    # A third of a pixel is two parts of the pixel itself and one of its neighbour on that side.
    for down in (0, 1, 2):
        rows = framed[:, 1:-1] * 2 + framed[:, down : down + SIDE]
        for across in (0, 1, 2):
            ink += rows[:, :, 1:-1] * 2 + rows[:, :, across : across + SIDE] >= level
    return _rounded(ink * 255, 9)


def _speckle(images: Images, strength: int, chances: Bytes) -> Images:
    """Dust and dropouts: single pixels become white or black, half of them each; more at higher strengths."""
    share = (0.01, 0.02, 0.03, 0.04, 0.05)[strength - 1]
    drawn = chances.view(">u2").reshape(images.shape)
    white, black = round(share / 2 * 2**16), round(share * 2**16)
    return np.where(drawn < white, 255, np.where(drawn < black, 0, images)).astype(np.uint8)


def _faint(images: Images, strength: int, _drawn: Bytes) -> Images:
    """The pen was running dry: strokes are thinner and paler."""
    thin, ink = (40, 75, 110, 145, 180)[strength - 1], (215, 185, 162, 142, 126)[strength - 1]
    mixed = images.astype(np.int64) * (_ONE - thin) + _spread(images, np.minimum).astype(np.int64) * thin
    return _rounded(mixed * ink, _ONE * _ONE)


def _thick(images: Images, strength: int, _drawn: Bytes) -> Images:
    """The pen was broad, or the ink ran: strokes are wider by up to two pixels on each side."""
    swollen = images
    parts = (128, 256, 384, 512, 640)[strength - 1]
    while parts > 0:
        share = min(parts, _ONE)
        wider = _spread(swollen, np.maximum).astype(np.int64)
        swollen = _rounded(swollen.astype(np.int64) * (_ONE - share) + wider * share, _ONE)
        parts -= _ONE
    return swollen


def _spread(images: Images, extreme: Callable[..., Images]) -> Images:
    """Return the extreme of each pixel and its four neighbours; black around the image."""
    framed = np.pad(images, [(0, 0), (1, 1), (1, 1)])
    sides = framed[:, :-2, 1:-1], framed[:, 2:, 1:-1], framed[:, 1:-1, :-2], framed[:, 1:-1, 2:]
    for side in sides:
        images = extreme(images, side)
    return images


def _rounded(values: Integers, scale: int) -> Images:
    """Return values / scale, rounded, as uint8."""
    return np.clip((values + scale // 2) // scale, 0, 255).astype(np.uint8)


KINDS: dict[str, Callable[[Images, int, Bytes], Images]] = {
    "skew": _skew,
    "blur": _blur,
    "threshold": _threshold,
    "speckle": _speckle,
    "faint": _faint,
    "thick": _thick,
}
_CHANCES = {"skew": 1, "blur": 1, "threshold": 1, "speckle": 2 * SIDE * SIDE, "faint": 1, "thick": 1}

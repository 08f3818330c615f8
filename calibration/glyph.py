"""Turns a scan of a character into an EMNIST-style glyph.

It also becomes a part of the programs that `glyphpress snippet` prints, so it needs numpy, Pillow and scipy alone.

`glyph` follows section II-A of the EMNIST paper (Cohen et al. 2017, arXiv:1702.05373): ink without paper, Gaussian
blur, crop to the region of interest, centre in a square with the aspect kept and 2 pixels of padding, bicubic down to
28x28, 0 to 255. The paper starts from binary images; here a scan's gray levels are stretched about the middle between
paper and ink, so that thin strokes of small scans do not break.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

from calibration.dataset import SIDE
from calibration.errors import CorruptData

Gray = NDArray[np.uint8]

PADDING = 2
_INNER = SIDE - 2 * PADDING
_WORK = 2 * _INNER
"""Pixels of the longer side of the ink during contrast stretching; finer than the glyph, for soft edges."""
_SIGMA = 1.0
"""Half a pixel of the glyph: the paper's one pixel on a 128-pixel form, whose characters fill about half of it."""
_EDGE = (0.35, 0.9)
"""Shares of the way from paper to ink: below the first is paper, above the second is ink."""
_LARGEST = 512
_FAINTEST = 24
"""Gray levels between ink and paper below which a scan counts as blank."""
_FRAME = 16
"""Largest brightness of the outermost pixels of a glyph; in EMNIST all but 5 images in 10,000 have 0 there."""
_DUST = 0.01
"""Specks smaller than this share of the ink are removed before the crop; the dot of an i has 4 % or more."""


def glyph(scan: Image.Image | Gray) -> Gray:
    """Return the uint8 [28, 28] glyph, bright ink on black, of a scan of any size, dark on light or the reverse.

    A 28x28 picture that is a glyph already (ink with a black or white frame) keeps its pixels, inverted if necessary.
    Raises CorruptData when there is no ink.
    """
    gray = gray_levels(scan)
    bright = bright_on_dark(gray)
    if is_glyph(bright):
        return bright
    return _settle(_ink(bright))


def gray_levels(scan: Image.Image | Gray, *, largest: int = _LARGEST) -> Gray:
    """Return a scan as uint8 [H, W], a side at most `largest`: turned by its tag, transparency white, 16 bits to 8."""
    if isinstance(scan, np.ndarray):
        if scan.dtype != np.uint8 or scan.ndim != 2:
            raise CorruptData(f"expected a uint8 scan [H, W], got {scan.dtype} {list(scan.shape)}; convert it first")
        scan = Image.fromarray(scan)
    picture = ImageOps.exif_transpose(scan)
    if picture.mode.startswith(("I", "F")):
        deep = np.asarray(picture, np.float32)
        span = max(float(np.ptp(deep)), 1e-9)
        picture = Image.fromarray(((deep - deep.min()) * (255 / span)).astype(np.uint8))
    if picture.has_transparency_data:
        clear = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)
    picture = picture.convert("L")
    shrink = -(-max(picture.size) // largest)
    return np.asarray(picture.reduce(shrink) if shrink > 1 else picture)


def bright_on_dark(gray: Gray) -> Gray:
    """Return the scan with bright ink on dark: paper is the majority of the frame, or of the scan if that is close.

    Raises CorruptData when the scan is blank.
    """
    light = gray >= levels(gray).threshold
    frame = np.concatenate([light[0], light[-1], light[:, 0], light[:, -1]]).mean()
    paper_is_light = (frame if abs(frame - 0.5) > 0.1 else light.mean()) > 0.5
    return 255 - gray if paper_is_light else gray


def is_glyph(bright: Gray) -> bool:
    """Return whether a bright-on-dark picture is 28x28 with an empty frame and fully bright ink, as in EMNIST."""
    if bright.shape != (SIDE, SIDE) or bright.max() < 250:
        return False
    frame = max(int(edge.max()) for edge in (bright[0], bright[-1], bright[:, 0], bright[:, -1]))
    return frame <= _FRAME


@dataclass(frozen=True)
class Levels:
    """Dark and light gray levels of a scan.

    threshold: the first light level, by Otsu's method (1979): least variance within both groups. dark: median of the
    dark levels. light: upper quartile of the light levels, since the lower part is edges.
    """

    threshold: int
    dark: int
    light: int


def levels(gray: Gray) -> Levels:
    """Return the levels of a scan from its histogram; raises CorruptData when it is blank."""
    counts = np.bincount(gray.reshape(-1), minlength=256).astype(np.float64)
    below, mass = np.cumsum(counts), np.cumsum(counts * np.arange(256))
    total = below[-1]
    both = np.flatnonzero((below > 0) & (below < total))
    if not len(both) or np.flatnonzero(counts)[-1] - both[0] < _FAINTEST:
        raise CorruptData("there is no ink in it; remove it or scan it again with more contrast")
    between = (mass[-1] / total * below[both] - mass[both]) ** 2 / (below[both] * (total - below[both]))
    last_dark = int(both[np.argmax(between)])
    dark = np.searchsorted(below, below[last_dark] / 2)
    light = np.searchsorted(below, total - (total - below[last_dark]) / 4)
    return Levels(last_dark + 1, int(dark), int(light))


def _ink(bright: Gray) -> Image.Image:
    """Crop to the ink, enlarge or reduce it to the working size, and stretch paper to 0 and ink to 255."""
    gray = levels(bright)
    top, bottom, left, right = _box(_without_dust(bright >= gray.threshold))
    scale = _WORK / max(bottom - top, right - left)
    # A pixel of paper on each side lets the interpolation end the strokes.
    framed = np.full((bright.shape[0] + 2, bright.shape[1] + 2), gray.dark, np.uint8)
    framed[1:-1, 1:-1] = bright
    cut = framed[top : bottom + 2, left : right + 2]
    size = (max(1, round(cut.shape[1] * scale)), max(1, round(cut.shape[0] * scale)))
    large = np.asarray(Image.fromarray(cut).resize(size, Image.Resampling.BICUBIC))
    low, high = (gray.dark + share * (gray.light - gray.dark) for share in _EDGE)
    stretch = np.clip((np.arange(256) - low) * (255 / (high - low)), 0, 255).astype(np.uint8)
    return ImageOps.expand(Image.fromarray(stretch[large]), round(3 * _SIGMA))


def _box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Return top, bottom, left, right of the set pixels, the second of each pair exclusive; CorruptData without any."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        raise CorruptData("there are only specks or hairlines in it; remove it or scan it again with more contrast")
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _without_dust(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the mask without specks, which would otherwise extend the crop."""
    # Few pixels contain no specks that are small enough, and the import is slow.
    if mask.sum() * _DUST < 1:
        return mask
    from scipy import ndimage

    parts, count = ndimage.label(mask, np.ones((3, 3), bool))
    if count < 2:
        return mask
    areas = np.bincount(parts.reshape(-1))
    areas[0] = 0
    return cast("NDArray[np.bool_]", (areas >= _DUST * areas.sum())[parts] & mask)


def _settle(ink: Image.Image) -> Gray:
    """Blur, then scale the square around the visible ink to 28x28."""
    blurred = ink.filter(ImageFilter.GaussianBlur(_SIGMA))
    top, bottom, left, right = _box(np.asarray(blurred) > _FAINTEST)
    side = max(bottom - top, right - left) * SIDE / _INNER
    x, y = (left + right - side) / 2, (top + bottom - side) / 2
    # Pillow's crop adds black outside the image; the fractional rest centres exactly.
    corner = math.floor(x), math.floor(y)
    room = math.ceil(side) + 1
    square = blurred.crop((*corner, corner[0] + room, corner[1] + room))
    x, y = x - corner[0], y - corner[1]
    small = square.resize((SIDE, SIDE), Image.Resampling.BICUBIC, (x, y, x + side, y + side))
    pixels = np.asarray(small, np.float32)
    scaled: Gray = np.round(pixels * (255 / pixels.max())).astype(np.uint8)
    return scaled

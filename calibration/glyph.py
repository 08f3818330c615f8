"""Turns scans into EMNIST-style glyphs: one at a time for applications, or a folder of pictures into a Dataset.

`glyph` follows section II-A of the EMNIST paper (Cohen et al. 2017, arXiv:1702.05373): ink without paper, Gaussian
blur, crop to the region of interest, centre in a square with the aspect kept and 2 pixels of padding, bicubic down to
28x28, 0 to 255. The paper starts from binary images; here a scan's gray levels are stretched about the middle between
paper and ink, so that thin strokes of small scans do not break.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

from calibration.dataset import SIDE, Dataset, Images, Labels, Split
from calibration.errors import CorruptData, DataNotFound, EmptyData
from calibration.picture import open_picture
from calibration.sample import TEST_SHARE, held_out
from calibration.spec import brackets, chosen_classes

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


_PARTS: tuple[Split, Split] = ("train", "test")
CLASS_LIST = "classes.json"
"""File in a folder of pictures that lists its classes in order, each with the name of its subfolder.

So a folder can lack pictures of some of a model's classes, and `A` and `a` need no folders that differ in case alone.
"""
_SAFE_FOLDER = re.compile(r"\w{1,64}", re.ASCII)


def load_folder(folder: Path, split: Split, names: tuple[str, ...] = ()) -> Dataset:
    """Read pictures of any size, dark on light or light on dark, as glyphs; classes are the sorted subfolder names.

    names: the classes to read, in the order of the labels; all without any.

    A CLASS_LIST in the folder names the classes and their order instead. Folders `train/` and `test/` are the splits;
    without them a fifth of each class is the test split, chosen by the pixels. Raises DataNotFound, EmptyData, and
    CorruptData with the picture.
    """
    parts = _split_folders(folder)
    if parts and split not in parts:
        raise DataNotFound(f"{folder} has no folder {split}/ beside {parts[0]}/; add it, or do without {split} images")
    listed = listed_classes(folder)
    every = tuple(listed) or (_same_classes(folder, parts) if parts else _classes(folder))
    classes = chosen_classes(names, every, str(folder)) if names else every
    choice = brackets(classes) if classes != every else ""
    origin = f"{folder.name}{choice}/{split}"
    images, labels = _read(folder / split if parts else folder, classes, listed)
    if parts:
        return Dataset.of(images, labels, classes, origin, split)
    test = held_out(images, labels, classes, TEST_SHARE)
    mask = test if split == "test" else ~test
    return Dataset.of(images[mask], labels[mask], classes, origin, split)


def read_picture(path: Path) -> Images:
    """Return one picture file as a glyph, uint8 [28, 28]; raises DataNotFound, and CorruptData with the file."""
    with open_picture(path, too_large="too many for a single character; crop it") as picture:
        return glyph(picture)


def listed_classes(folder: Path) -> dict[str, str]:
    """Return class -> name of its subfolder, in the order of the CLASS_LIST; empty where the folder has none.

    A class may have no subfolder, and then has no pictures. Raises CorruptData with the file.
    """
    path = folder / CLASS_LIST
    if not path.is_file():
        return {}
    try:
        listed = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CorruptData(f"{path} is no JSON ({error}); write it again, or remove it") from error
    names = list(listed.values()) if isinstance(listed, dict) else [""]
    if not names or not all(isinstance(name, str) and _SAFE_FOLDER.fullmatch(name) for name in names):
        raise CorruptData(
            f'{path} should be an object of class -> subfolder, such as {{"A": "upper_A"}}, with folders named of '
            "A-Z, a-z, 0-9 and _; correct it"
        )
    if len({name.casefold() for name in names}) < len(names):
        raise CorruptData(f"{path} gives two classes one folder; correct it")
    return cast("dict[str, str]", listed)


def _classes(folder: Path) -> tuple[str, ...]:
    emnist_file = next(folder.glob("emnist-*-ubyte*"), None) or next(folder.glob("*/emnist-*-ubyte*"), None)
    emnist_file = emnist_file or next(folder.glob("*/*/emnist-*-ubyte*"), None)
    if emnist_file:
        raise EmptyData(f"{folder} holds EMNIST files, not pictures; write {folder}:{emnist_file.name.split('-')[1]}")
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    for name in (folder.resolve().name, *names):
        if not name.isascii() and name != name.encode(errors="ignore").decode():
            raise CorruptData(f"{folder}: the folder name {name!a} is not UTF-8; rename it, or run with LC_ALL=C.UTF-8")
    if not names:
        raise EmptyData(
            f"{folder} holds no class subfolders; put the pictures of each class into a folder named after the class"
        )
    if len(names) == 1:
        raise EmptyData(f"{folder} holds a single class, '{names[0]}'; two or more are needed")
    return tuple(names)


def _split_folders(folder: Path) -> tuple[Split, ...]:
    """Return the splits that have a folder of their name: both, or one where there are no other folders."""
    names = {path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}
    parts = tuple(part for part in _PARTS if part in names)
    return parts if len(parts) == len(_PARTS) or names == set(parts) else ()


def _same_classes(folder: Path, parts: tuple[Split, ...]) -> tuple[str, ...]:
    sides = [_classes(folder / part) for part in parts]
    if different := sorted(set(sides[0]) ^ set(sides[-1])):
        raise CorruptData(
            f"{folder}: classes {', '.join(different[:5])} are not in both train/ and test/; make them match"
        )
    return sides[0]


def _read(folder: Path, classes: tuple[str, ...], listed: dict[str, str]) -> tuple[Images, Labels]:
    """Read the pictures of the classes. listed: as `listed_classes` returns it."""
    folders = [folder / listed.get(name, name) for name in classes]
    files = [
        (path, label)
        for label, place in enumerate(folders)
        if not listed or place.is_dir()
        for path in _pictures(place)
    ]
    images = np.empty((len(files), SIDE, SIDE), np.uint8)
    for index, (path, _) in enumerate(files):
        images[index] = read_picture(path)
    return images, np.array([label for _, label in files], np.int64)


def _pictures(folder: Path) -> list[Path]:
    pictures = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not pictures:
        raise EmptyData(f"{folder} holds no pictures; add some, or name another data set")
    return pictures

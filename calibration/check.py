"""Checks a data set: counts, balance, duplicates and orientation.

Files that cannot be read are errors (CorruptData); other problems of a data set are findings.

The orientation of glyphs, one of eight, is found by comparing them with upright references: the built-in handwritten
digits, and letters printed with the font inside Pillow, both converted by `glyph`; none is from EMNIST. A glyph votes
for the turn in which it is most similar to a reference of its class, so symmetric letters spread their votes and the
others decide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from string import ascii_letters, digits
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from calibration.dataset import SIDE, Dataset, Images, Split, chunks
from calibration.errors import DataNotFound
from calibration.glyph import glyph
from calibration.load import BUILT_IN, all_digits, load
from calibration.sample import image_hashes
from calibration.spec import SPLITS, EmnistSplit

_SPLITS: tuple[Split, Split] = ("test", "train")
_EVEN_RATIO = 1.05
_UNEVEN_RATIO = 10.0


@dataclass(frozen=True)
class SplitCheck:
    """One split. official: the published number of images, None if there is none. copies: repeats of an image.

    conflicts: images with a copy that has another label. inverted: dark ink on light.
    """

    split: str
    origin: str
    sha256: str
    shape: tuple[int, ...]
    official: int | None
    per_class: dict[str, int]
    copies: int
    conflicts: int
    inverted: bool

    @property
    def images(self) -> int:
        """Return the number of images."""
        return self.shape[0]

    @property
    def class_range(self) -> tuple[int, int]:
        """Return the smallest and the largest number of images of a class."""
        return min(self.per_class.values()), max(self.per_class.values())


@dataclass(frozen=True)
class CheckReport:
    """The result of a check.

    shared: number of images of the test split that are in the train split too; None when one of the splits is missing.
    orientation: of the first split that is there; None when no class can be compared. findings: a sentence for each
    problem.
    """

    spec: str
    classes: tuple[str, ...]
    splits: tuple[SplitCheck, ...]
    shared: int | None
    orientation: Orientation | None
    findings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return the report as lines of text."""
        lines = [f"{self.spec}: {len(self.classes)} classes: {' '.join(self.classes)}"]
        for check in self.splits:
            official = f", official {check.official:,}" if check.official is not None else ""
            least, most = check.class_range
            lines.append(
                f"{check.split:6}{check.images:,} images of 28x28{official}; {least:,} to {most:,} a class; "
                f"{check.copies:,} copies; sha256 {check.sha256[:12]}  {check.origin}"
            )
        lines.append(f"shared by train and test: {'not known' if self.shared is None else format(self.shared, ',')}")
        lines.append(f"orientation: {self.orientation or 'not known'}")
        return [*lines, *(f"finding: {text}" for text in self.findings or ("none",))]


def check(
    spec: str,
    data_root: Path | None = None,
    seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda _label, _done, _total: None,
) -> CheckReport:
    """Check the data set `spec`, with one split in memory at a time; raises as `load` does, and when it has no split.

    The built-in digits are the reference for orientation, so theirs is always right.
    """
    # A spec with a choice of classes has brackets, and no official counts.
    table = None if spec in BUILT_IN or Path(spec).is_dir() else SPLITS.get(spec.rpartition(":")[2])
    checked: list[SplitCheck] = []
    hashes: list[NDArray[np.bytes_]] = []
    findings: list[str] = []
    orientation_found: Orientation | None = None
    for done, split in enumerate(_SPLITS):
        progress(f"checking {spec}", done, len(_SPLITS))
        try:
            data = load(spec, split, data_root)
        except DataNotFound as error:
            if split == _SPLITS[-1] and not checked:
                raise
            findings.append(f"{split}: not checked, nor compared with the other split: {error}")
            continue
        hashes.append(image_hashes(data.images))
        checked.append(_split_check(data, hashes[-1], table))
        orientation_found = orientation_found or orientation(data, seed)
    progress(f"checking {spec}", len(_SPLITS), len(_SPLITS))
    shared = int(np.isin(hashes[0], hashes[1]).sum()) if len(hashes) == len(_SPLITS) else None
    for split_check in checked:
        findings += _split_findings(split_check, table)
    if shared:
        findings.append(
            f"{shared:,} images of the test split are in the train split too, so results on them are too good"
        )
    findings += _orientation_findings(orientation_found)
    return CheckReport(spec, tuple(checked[0].per_class), tuple(checked), shared, orientation_found, tuple(findings))


def _split_check(data: Dataset, hashes: NDArray[np.bytes_], table: EmnistSplit | None) -> SplitCheck:
    counts = np.bincount(data.labels, minlength=len(data.classes))
    _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    frame = np.concatenate([data.images[part][:, [0, 0, -1, -1], [0, -1, 0, -1]] for part in chunks(len(data))])
    return SplitCheck(
        data.split,
        data.origin,
        data.sha256,
        data.images.shape,
        getattr(table, data.split, None),
        {name: int(count) for name, count in zip(data.classes, counts, strict=True)},
        len(data) - len(first),
        int((data.labels != data.labels[first][group]).sum()),
        bool(np.median(frame) > 127),
    )


def _split_findings(split: SplitCheck, table: EmnistSplit | None) -> list[str]:
    findings = []
    if split.official is not None and split.images != split.official:
        findings.append(f"{split.split}: {split.images:,} images, not the official {split.official:,}")
    if absent := [name for name, count in split.per_class.items() if not count]:
        findings.append(f"{split.split}: no image of {len(absent)} classes: {' '.join(absent[:10])}")
    least, most = split.class_range
    limit = _EVEN_RATIO if table and table.balanced else np.inf if table else _UNEVEN_RATIO
    if most > limit * max(1, least):
        findings.append(f"{split.split}: classes are uneven, {least:,} to {most:,} images each")
    if split.conflicts:
        findings.append(f"{split.split}: {split.conflicts:,} images are copies of one that has another label")
    elif split.copies:
        findings.append(f"{split.split}: {split.copies:,} images are copies of another one in it")
    if split.inverted:
        findings.append(f"{split.split}: dark ink on light, the reverse of EMNIST")
    return findings


def _orientation_findings(result: Orientation | None) -> list[str]:
    if result is None:
        return ["orientation was not checked: no class is a digit or a Latin letter"]
    if not result.sure:
        return [f"orientation is undecided: {result}"]
    if result.looks != "upright":
        undo = UNDONE_BY.get(result.looks, result.looks)
        return [f"the images are not upright: {result}; {undo} them and save them again"]
    return []


Features = NDArray[np.float32]

TURNS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "upright": lambda x: x,
    "mirror": lambda x: x[:, :, ::-1],
    "flip": lambda x: x[:, ::-1, :],
    "rot180": lambda x: x[:, ::-1, ::-1],
    "transpose": lambda x: x.swapaxes(1, 2),
    "rot90": lambda x: x.swapaxes(1, 2)[:, ::-1, :],
    "rot270": lambda x: x.swapaxes(1, 2)[:, :, ::-1],
    "anti-transpose": lambda x: x.swapaxes(1, 2)[:, ::-1, ::-1],
}
"""Turns of upright glyphs, by their names in `targets.preprocess` (`rot90` is counter-clockwise)."""

UNDONE_BY = {"rot90": "rot270", "rot270": "rot90"}
"""Turn -> its inverse; all other turns are their own inverse."""

_SLANTS = (0.0, 0.2, 0.4)
_COMPARED = 400
_SURE_ABOVE = 0.99
_DRAWS = 4000


@dataclass(frozen=True)
class Orientation:
    """The orientation of glyphs by a vote.

    looks: the turn with most votes. votes: share of the compared images by turn. images: number of compared images.
    confidence: probability that `looks` would get most votes of all such images (flat Dirichlet prior on the shares).
    """

    looks: str
    votes: dict[str, float]
    images: int
    confidence: float

    @property
    def sure(self) -> bool:
        """Whether the votes decide it."""
        return self.confidence >= _SURE_ABOVE

    def __str__(self) -> str:
        """Return the result in one line."""
        (first, share), (second, less) = sorted(self.votes.items(), key=lambda vote: -vote[1])[:2]
        sure = "over 99.9%" if self.confidence > 0.999 else f"{self.confidence:.1%}"
        return (
            f"{first} by {share:.0%} of the votes, next {second} {less:.0%} "
            f"({self.images} images compared, {sure} sure)"
        )


def orientation(data: Dataset, seed: int = 0) -> Orientation | None:
    """Return the orientation of the images, or None when no class is a digit or a Latin letter.

    About 400 images are compared, about equally many of each class. They must be bright ink on dark.
    """
    rng = np.random.default_rng(seed)
    known = [label for label, name in enumerate(data.classes) if name in (*digits, *ascii_letters)]
    best: list[NDArray[np.int64]] = []
    for label in known:
        members = np.flatnonzero(data.labels == label)
        chosen = rng.permutation(members)[: -(-_COMPARED // len(known))]
        reference = _reference(_written_as(data.classes[label], data.classes))
        best.append(_best_turn(data.images[chosen], reference))
    counts = np.bincount(np.concatenate(best), minlength=len(TURNS)) if best else np.zeros(len(TURNS), np.int64)
    total = int(counts.sum())
    if not total:
        return None
    winner = int(counts.argmax())
    confidence = float((rng.dirichlet(counts + 1, _DRAWS).argmax(1) == winner).mean())
    votes = {name: int(count) / total for name, count in zip(TURNS, counts, strict=True)}
    return Orientation(list(TURNS)[winner], votes, total, confidence)


def _best_turn(images: Images, reference: Features) -> NDArray[np.int64]:
    """Return for each image the index of the turn whose inverse makes it most similar to a reference."""
    if not len(images):
        return np.empty(0, np.int64)
    features = _features(images)
    # Blurring and scaling are the same in every direction, so features turn as images do.
    undone = np.stack([TURNS[UNDONE_BY.get(name, name)](features) for name in TURNS])
    similarity = undone.reshape(-1, SIDE * SIDE) @ reference.T
    turns: NDArray[np.int64] = similarity.max(1).reshape(len(TURNS), -1).argmax(0).astype(np.int64)
    return turns


def _features(images: Images) -> Features:
    """Return float32 [N, 28, 28], slightly blurred and normalised glyphs, whose dot products are correlations."""
    pixels = images.astype(np.float32)
    for axis in (1, 2):
        near = [np.roll(pixels, shift, axis) * weight for shift, weight in ((-2, 1), (-1, 2), (0, 3), (1, 2), (2, 1))]
        pixels = sum(near[1:], near[0])
    pixels -= pixels.mean((1, 2), keepdims=True)
    unit: Features = pixels / np.maximum(np.sqrt((pixels**2).sum((1, 2), keepdims=True)), 1e-6)
    return unit


def _written_as(name: str, classes: tuple[str, ...]) -> tuple[str, ...]:
    """Return both cases of a letter where they share a class, as in EMNIST's merged splits."""
    other = name.swapcase()
    return (name,) if other == name or other in classes else (name, other)


@cache
def _reference(characters: tuple[str, ...]) -> Features:
    """Return float32 [references, 784] of upright examples of any of the characters."""
    images, labels = all_digits()
    examples = [images[labels == int(char)] if char in digits else _printed(char) for char in characters]
    return _features(np.concatenate(examples)).reshape(-1, SIDE * SIDE)


def _printed(char: str) -> Images:
    """Return a printed letter as glyphs at the slants of handwriting."""
    font = ImageFont.load_default(3 * SIDE)
    page = Image.new("L", (8 * SIDE, 6 * SIDE), 255)
    ImageDraw.Draw(page).text((3 * SIDE, SIDE), char, font=font, fill=0)
    middle = 3 * SIDE
    slanted = [
        page.transform(page.size, Image.Transform.AFFINE, (1, s, -s * middle, 0, 1, 0), fillcolor=255) for s in _SLANTS
    ]
    return np.stack([glyph(scan) for scan in slanted])

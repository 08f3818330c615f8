"""Checks a data set: counts, balance, duplicates and orientation.

Files that cannot be read are errors (CorruptData); other problems of a data set are findings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.builtin import BUILT_IN
from calibration.dataset import Dataset, Split, chunks
from calibration.errors import DataNotFound
from calibration.listener import Listener, listening
from calibration.load import load
from calibration.orientation import UNDONE_BY, Orientation, orientation
from calibration.sample import image_hashes
from calibration.spec import SPLITS, EmnistSplit

_SPLITS: tuple[Split, Split] = ("test", "train")
_EVEN_RATIO = 1.05
_UNEVEN_RATIO = 10.0


@dataclass(frozen=True)
class SplitCheck:
    """One split. official: the published number of images, None if there is none. copies: repeats of an image.

    conflicts: images with a copy that has another label. inverted: dark ink on light. found: what was found in a file
    that does not say how it is to be read; empty for others.
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
    found: str

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
            lines += [f"{check.split:6}{check.found}"] * bool(check.found)
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
            # What it finds in files stands in the report.
            with listening(Listener(progress=progress)):
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
            _images(shared, "of the test split is", "of the test split are")
            + " in the train split too, so results are too good"
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
        data.found,
    )


def _images(count: int, one: str, many: str) -> str:
    return f"1 image {one}" if count == 1 else f"{count:,} images {many}"


def _split_findings(split: SplitCheck, table: EmnistSplit | None) -> list[str]:
    findings = []
    if split.official is not None and split.images != split.official:
        findings.append(f"{split.split}: {split.images:,} images, not the official {split.official:,}")
    if absent := [name for name, count in split.per_class.items() if not count]:
        classes = "1 class" if len(absent) == 1 else f"{len(absent)} classes"
        findings.append(f"{split.split}: no image of {classes}: {' '.join(absent[:10])}")
    least, most = split.class_range
    limit = _EVEN_RATIO if table and table.balanced else np.inf if table else _UNEVEN_RATIO
    if most > limit * max(1, least):
        findings.append(f"{split.split}: classes are uneven, {least:,} to {most:,} images each")
    if split.conflicts:
        findings.append(
            f"{split.split}: {_images(split.conflicts, 'is a copy', 'are copies')} of one that has another label"
        )
    elif split.copies:
        findings.append(f"{split.split}: {_images(split.copies, 'is a copy', 'are copies')} of another one in it")
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

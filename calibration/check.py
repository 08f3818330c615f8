"""Is a data set what it says it is? Counts, balance, copies and orientation, put into words.

Files that cannot be read are errors (CorruptData); everything a readable data set can have wrong is a finding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.dataset import Dataset, Split, chunks
from calibration.errors import DataNotFound
from calibration.load import DIGITS, load
from calibration.orientation import UNDONE_BY, Orientation, orientation
from calibration.sample import image_hashes
from calibration.splits import SPLITS, EmnistSplit

_PARTS: tuple[Split, Split] = ("test", "train")
_EVEN = 1.05
_LOPSIDED = 10.0


@dataclass(frozen=True)
class SplitCheck:
    """One split. official: the published count, None when there is none. copies: images that repeat an earlier one.

    conflicts: images whose copy carries another label. inverted: dark ink on light.
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


@dataclass(frozen=True)
class CheckReport:
    """What was found; JSON through `to_dict` and `from_dict`.

    shared: images of the test split whose pixels stand in the train split too; None when one of them is missing.
    orientation: of the first split that is there; None when no class can be compared.
    findings: one sentence for each thing that is not as it should be; empty when all is well.
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
        """Say it all, a line each."""
        said = [f"{self.spec}: {len(self.classes)} classes: {' '.join(self.classes)}"]
        for found in self.splits:
            official = f", official {found.official:,}" if found.official is not None else ""
            least, most = min(found.per_class.values()), max(found.per_class.values())
            said.append(
                f"{found.split:6}{found.images:,} images of 28x28{official}; {least:,} to {most:,} a class; "
                f"{found.copies:,} copies; sha256 {found.sha256[:12]}  {found.origin}"
            )
        said.append(f"shared by train and test: {'not known' if self.shared is None else format(self.shared, ',')}")
        said.append(f"orientation: {self.orientation or 'not known'}")
        return [*said, *(f"finding: {text}" for text in self.findings or ("none",))]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CheckReport:
        """Rebuild from `to_dict`, also after a trip through JSON."""
        splits = tuple(SplitCheck(**split | {"shape": tuple(split["shape"])}) for split in values["splits"])
        turned = values["orientation"]
        return cls(
            values["spec"],
            tuple(values["classes"]),
            splits,
            values["shared"],
            Orientation(**turned) if turned else None,
            tuple(values["findings"]),
        )


def check(
    spec: str,
    data_root: Path | None = None,
    seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda _label, _done, _total: None,
) -> CheckReport:
    """Check what `spec` names, one split in memory at a time; raises as `load` does, and when no split is there.

    The built-in digits are the reference of their own orientation, so for them that part can find nothing.
    """
    # A choice of classes has brackets behind the name, and no official counts.
    table = None if spec == DIGITS or Path(spec).is_dir() else SPLITS.get(spec.rpartition(":")[2])
    checked: list[SplitCheck] = []
    hashes: list[NDArray[np.bytes_]] = []
    findings: list[str] = []
    stands: Orientation | None = None
    for done, split in enumerate(_PARTS):
        progress(f"checking {spec}", done, len(_PARTS))
        try:
            data = load(spec, split, data_root)
        except DataNotFound as error:
            if split == _PARTS[-1] and not checked:
                raise
            findings.append(f"{split}: not checked, nor compared with the other split: {error}")
            continue
        hashes.append(image_hashes(data.images))
        checked.append(_split_check(data, hashes[-1], table))
        stands = stands or orientation(data, seed)
    progress(f"checking {spec}", len(_PARTS), len(_PARTS))
    shared = int(np.isin(hashes[0], hashes[1]).sum()) if len(hashes) == len(_PARTS) else None
    for found in checked:
        findings += _split_findings(found, table)
    if shared:
        findings.append(f"{shared:,} images of the test split are in the train split too; results on them are too good")
    findings += _orientation_findings(stands)
    return CheckReport(spec, tuple(checked[0].per_class), tuple(checked), shared, stands, tuple(findings))


def _split_check(data: Dataset, hashes: NDArray[np.bytes_], table: EmnistSplit | None) -> SplitCheck:
    counts = np.bincount(data.labels, minlength=len(data.classes))
    _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    frame = np.concatenate([data.images[part][:, [0, 0, -1, -1], [0, -1, 0, -1]] for part in chunks(len(data))])
    return SplitCheck(
        data.split,
        data.origin,
        data.sha256,
        data.images.shape,
        table.official_count(data.split) if table else None,
        {name: int(count) for name, count in zip(data.classes, counts, strict=True)},
        len(data) - len(first),
        int((data.labels != data.labels[first][group]).sum()),
        bool(np.median(frame) > 127),
    )


def _split_findings(found: SplitCheck, table: EmnistSplit | None) -> list[str]:
    said = []
    if found.official is not None and found.images != found.official:
        said.append(f"{found.split}: {found.images:,} images, not the official {found.official:,}")
    if absent := [name for name, count in found.per_class.items() if not count]:
        said.append(f"{found.split}: no image of {len(absent)} classes: {' '.join(absent[:10])}")
    most, least = max(found.per_class.values()), min(found.per_class.values())
    limit = _EVEN if table and table.balanced else np.inf if table else _LOPSIDED
    if most > limit * max(1, least):
        said.append(f"{found.split}: classes are uneven, {least:,} to {most:,} images each")
    if found.conflicts:
        said.append(f"{found.split}: {found.conflicts:,} images are copies of one that has another label")
    elif found.copies:
        said.append(f"{found.split}: {found.copies:,} images are copies of another one in it")
    if found.inverted:
        said.append(f"{found.split}: dark ink on light, the reverse of EMNIST")
    return said


def _orientation_findings(stands: Orientation | None) -> list[str]:
    if stands is None:
        return ["orientation was not checked: no class is a digit or a Latin letter"]
    if not stands.sure:
        return [f"orientation is undecided: {stands}"]
    if stands.looks != "upright":
        undo = UNDONE_BY.get(stands.looks, stands.looks)
        return [f"the images are not upright: {stands}; {undo} them and save them again"]
    return []

"""What `--data` can name, and where it was found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from calibration import builtin, emnist
from calibration.builtin import DIGITS
from calibration.dataset import Split
from calibration.splits import SPLITS


@dataclass(frozen=True)
class Entry:
    """A data set. train, test: image counts, EMNIST's as published. found: folder by split, only where it is."""

    spec: str
    classes: tuple[str, ...]
    train: int
    test: int
    found: dict[str, str]

    def where(self) -> str:
        """Say where it is, in a few words."""
        places = sorted(set(self.found.values()))
        only = f" ({' '.join(self.found)} only)" if len(self.found) == 1 else ""
        return ", ".join(places) + only if places else "not here; `glyphpress data fetch` gets it"

    def line(self) -> str:
        """Say it in a line whose columns stand under each other."""
        return f"{self.spec:16} {len(self.classes):3} classes {self.train:9,} train {self.test:9,} test  {self.where()}"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return asdict(self)


def catalog(data_root: Path | None = None) -> list[Entry]:
    """Return the built-in digits and EMNIST's six splits, which are looked for as `load` does."""
    places = emnist.roots(data_root)
    train, test = builtin.digits("train"), builtin.digits("test")
    inside = {"train": "built in", "test": "built in"}
    entries = [Entry(DIGITS, test.classes, len(train), len(test), inside)]
    for table in SPLITS.values():
        found: dict[str, str] = {}
        parts: tuple[Split, Split] = ("train", "test")
        for split in parts:
            try:
                files = emnist.find(table, split, places)
            except PermissionError as error:
                found[split] = f"{error.filename}, which cannot be read"
                continue
            if files and files.complete:
                found[split] = str(files.folder)
        entries.append(Entry(f"emnist:{table.name}", table.classes, table.train, table.test, found))
    return entries

"""What a folder holds, in parts that can be compared where a part of each file differs from run to run, as times do."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Parts = dict[str, str]
TORN = "torn"
LOGS = "cache/glyphpress/log"


def tree(folder: Path, *, hidden: bool) -> dict[str, Parts]:
    """Return the parts of every file below a folder, and of folders that are empty. hidden: the hidden ones too.

    The converters' logs, which have the time in their names, are left out.
    """
    names = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*"))}
    return {
        name: {} if path.is_dir() else parts(path)
        for name, path in names.items()
        if (hidden or "/." not in f"/{name}") and not name.startswith(LOGS)
        if not path.is_dir() or not any(path.iterdir())
    }


def parts(path: Path) -> Parts:
    """Return the parts of a file: values of a JSON, members of a zip, headings of a report, else the whole."""
    if path.suffix == ".json":
        try:
            return dict(_values("", json.loads(path.read_bytes())))
        except ValueError:
            return {TORN: path.name}
    if path.suffix == ".md":
        text = path.read_text()
        return {line: "" for line in text.splitlines() if line.startswith("#")} if text.endswith("\n") else {TORN: ""}
    if path.suffix in {".npz", ".pt", ".pt2"}:
        try:
            with zipfile.ZipFile(path) as archive:
                # Reading a member checks its sum.
                return {name: _digest(archive.read(name)) for name in archive.namelist()}
        except (zipfile.BadZipFile, EOFError):
            return {TORN: path.name}
    data = path.read_bytes()
    # ONNX Runtime puts the tables of an .ort file in another order in each process.
    return {"": str(len(data)) if path.suffix == ".ort" else _digest(data)}


@dataclass(frozen=True)
class Pattern:
    """What a file of a finished run holds. settled: the parts that are the same each time; names: all that it has."""

    settled: Parts
    names: frozenset[str]

    @classmethod
    def of(cls, one: Parts, other: Parts, varying: Callable[[str], bool]) -> Pattern:
        """Return the pattern of two finished runs, where some parts are known to differ."""
        settled = {name: value for name, value in one.items() if other.get(name) == value and not varying(name)}
        return cls(settled, frozenset(name for name in one.keys() & other.keys() if not varying(name)))

    def unlike(self, file: Parts) -> str:
        """Return a part that no finished run has so, or an empty string."""
        wrong = [name for name in sorted(self.names) if name not in file]
        wrong += [name for name, value in sorted(self.settled.items()) if file.get(name) != value]
        return f"part {wrong[0]!r}" if wrong else ""


def _values(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict | list) and value:
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _values(f"{name}/{key}", each)
    else:
        yield name, json.dumps(value)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

"""Stored timings: the raw nanoseconds of a run as an `.npz`, written by `profile -o` and by a press, and read again.

`meta` is JSON: `schema` (SCHEMA), and `rows`, one for each file on each target: `artifact`, `sha256`, `facts`,
`machine`, `batch`, `inner`, `warmup`, `load_ns`, `first_run_ns`, and what else the run tells. Row K has three arrays of
int64 where it was timed: `samples_ns_K` [N] in order, `blocks_K` (where in them each round starts), and `interrupted_K`
[M, 2] (which sample was interrupted, for how many nanoseconds).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from targets.errors import RunFailed
from targets.host.text import json_value
from targets.session import Timings
from toolchain.core.errors import EvidenceError
from toolchain.core.files import refuse_other, whole_file
from toolchain.evaluation.read_npz import UNREADABLE, unpacked

SCHEMA = "glyphpress/timings/1"
MOST_ROUNDS = 1000
"""More than any run has; the bootstrap holds thousands of numbers for each."""
_META_FIELDS = ("facts", "machine", "batch", "inner", "warmup", "load_ns", "first_run_ns")


@dataclass(frozen=True, eq=False)
class StoredRow:
    """One file that was timed. artifact: its name."""

    artifact: str
    timings: Timings

    @property
    def key(self) -> tuple[str, str]:
        """What the same file in another run is known by: its name and its target."""
        return self.artifact, self.timings.facts.target

    @property
    def machine(self) -> str:
        """The board or processor that it ran on."""
        state = self.timings.machine
        return state.get("board") or state.get("cpu") or "an unknown machine"


@dataclass(frozen=True, eq=False)
class StoredRun:
    """The rows of a file that were timed. name: the path as it was given. untimed: a line for each of the others."""

    name: str
    rows: tuple[StoredRow, ...]
    untimed: tuple[str, ...] = ()


def save_timings(path: Path, meta: dict[str, Any], timings: Sequence[Timings | None], *, force: bool = False) -> None:
    """Write timings, one for each of `meta["rows"]` that has them; raises UsageProblem over an existing file."""
    text = json.dumps({"schema": SCHEMA} | meta, ensure_ascii=False, allow_nan=False)
    arrays: dict[str, Any] = {"meta": np.array(text)}
    for k, row in enumerate(timings):
        if row:
            arrays |= {f"samples_ns_{k}": row.samples_ns, f"blocks_{k}": np.array(row.blocks, np.int64)}
            arrays[f"interrupted_{k}"] = np.array(row.interrupted, np.int64).reshape(-1, 2)
    with whole_file(path, force=force) as part, part.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def load_timings(path: Path) -> StoredRun:
    """Read what `save_timings` wrote; raises EvidenceError on anything else.

    Files from before a schema and interruptions were stored are read too.
    """
    make = "`glyphpress profile ARTIFACT -o FILE.npz` makes one"
    if not path.is_file():
        raise EvidenceError(f"{path}: no such file; {make}")
    refuse_other(path, "timings")
    try:
        stored = unpacked(path.read_bytes())
        meta = json_value(str(stored["meta"]))
        if meta.get("schema", SCHEMA) != SCHEMA:
            raise ValueError(f"expected {SCHEMA}")
        rows = [_row(stored, k, row) for k, row in enumerate(meta["rows"]) if f"samples_ns_{k}" in stored]
        untimed = tuple(_untimed(row) for k, row in enumerate(meta["rows"]) if f"samples_ns_{k}" not in stored)
        if not rows:
            raise ValueError(f"nothing in it was timed{': ' * bool(untimed)}{', '.join(untimed)}")
    except (*UNREADABLE, RunFailed, IndexError, OverflowError) as error:
        raise EvidenceError(f"{path}: not stored timings ({error}); {make}") from error
    return StoredRun(str(path), tuple(rows), untimed)


def _untimed(row: dict[str, Any]) -> str:
    where = f"{row['artifact']} on {row.get('target', 'a place that is not named')}"
    if row.get("instructions"):
        return f"{where} is emulated: instructions were counted there, no times"
    return f"{where} was not timed"


def _row(stored: dict[str, Any], k: int, row: dict[str, Any]) -> StoredRow:
    arrays = {
        "samples_ns": _integers(stored[f"samples_ns_{k}"], 1),
        "blocks": _integers(stored[f"blocks_{k}"], 1),
        "interrupted": _integers(stored.get(f"interrupted_{k}", np.empty((0, 2), np.int64)), 2),
    }
    if len(arrays["blocks"]) > MOST_ROUNDS or arrays["samples_ns"].min(initial=1) < 1:
        raise ValueError("more rounds than any run has, or samples that take no time")
    lists = {name: array.tolist() for name, array in arrays.items()}
    timings = Timings.from_dict({name: row[name] for name in _META_FIELDS} | lists | {"artifact_sha256": row["sha256"]})
    state = timings.machine
    names = [row["artifact"], state.get("board", ""), state.get("cpu", "")]
    if not all(isinstance(name, str) for name in names) or min(timings.batch, timings.inner) < 1:
        raise TypeError("a name is no text, or a batch has no image")
    # Read once here, since what the machine's state holds is looked at nowhere else before it is shown.
    _ = timings.taints, timings.busy_cores
    return StoredRow(row["artifact"], timings)


def _integers(array: Any, axes: int) -> NDArray[np.int64]:
    if array.dtype != np.int64 or array.ndim != axes:
        raise ValueError(f"an array is {array.dtype} {list(array.shape)}")
    return np.asarray(array, np.int64)

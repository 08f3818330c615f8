"""Saved profiles: a JSON file for each run, with raw samples, machine, versions and digests, in a folder that grows.

A file is `SCHEMA`, the fields of `SavedProfile`, and `digest`: the SHA-256 of all other keys as canonical JSON, so that
a file that was cut off or edited is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from targets.errors import TargetError, plain_reason
from targets.host.text import argument, instead_of, json_text, json_value
from targets.session import Instructions, RuntimeFacts, TimingPlan, Timings
from toolchain.core.errors import EvidenceError
from toolchain.core.files import write_whole
from toolchain.core.json_codec import ByItself, Count, from_json, json_types
from toolchain.core.versions import tool_versions
from toolchain.evaluation.timings import MOST_ROUNDS
from toolchain.profiling.measurements import MeasuredFile, Measurements

SCHEMA = "glyphpress/saved-profile/1"
SHORT = 10
"""Digits of a commit in tables, as `git log --oneline` of a large repository shows."""
_MACHINE = ("board", "cpu", "architecture", "cores", "pinned", "isa", "governor")
"""What makes two machines unlike, among the keys of `machine_state`."""
_TOOLS = ("onnxruntime", "ai-edge-litert", "openvino", "numpy")


@dataclass(frozen=True, eq=False)
class SavedRow:
    """One file on one target. timings, instructions: what the target could measure; refused: why it did neither."""

    artifact: str
    sha256: str
    bytes: Count
    target: str
    peak_bytes: Count | None = None
    refused: str = ""
    timings: Annotated[Timings, ByItself(written=True)] | None = None
    instructions: Annotated[Instructions, ByItself(written=True)] | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Identifies the same file in another run: its name and its target."""
        return self.artifact, self.target

    @property
    def facts(self) -> RuntimeFacts | None:
        """The runtime that ran it."""
        measured = self.timings or self.instructions
        return measured.facts if measured else None

    @property
    def batch(self) -> int | None:
        """Images per inference."""
        measured = self.timings or self.instructions
        return measured.batch if measured else None

    @property
    def timed(self) -> Timings | None:
        """The timings of a device; None for those of a script, which are not a latency."""
        return self.timings if self.timings and not self.timings.facts.simulated else None


@dataclass(frozen=True, eq=False)
class SavedProfile:
    """One run of `profile`.

    created: when it ended, in UTC. commit, committed: name and time of the commit that was checked out; empty where
    none is known. command: its words. tools: versions of packages. machine: this machine before the run; that of a
    board is in its timings. taints: the reasons why a machine was not quiet. path: where it was read, else None.
    """

    created: str
    commit: str
    committed: str
    command: tuple[str, ...]
    tools: dict[str, str]
    machine: dict[str, Any]
    plan: TimingPlan
    threads: int
    rounds: int
    seed: int
    taints: tuple[str, ...]
    rows: tuple[SavedRow, ...]
    path: Path | None = None

    @property
    def name(self) -> str:
        """What messages call it: its path, or when it was made."""
        return str(self.path or self.created)

    def machine_of(self, row: SavedRow) -> dict[str, Any]:
        """Return what makes machines unlike of the one that ran a file."""
        state = row.timings.machine if row.timings else self.machine
        return {key: state[key] for key in _MACHINE if key in state}

    def to_dict(self) -> dict[str, Any]:
        """Return everything with the samples as JSON types, without schema and digest."""
        rows = [
            {name: getattr(row, name) for name in ("artifact", "sha256", "bytes", "target", "peak_bytes", "refused")}
            | {"timings": row.timings.to_dict() if row.timings else None}
            | {"instructions": row.instructions.to_dict() if row.instructions else None}
            for row in self.rows
        ]
        names = ("created", "commit", "committed", "command", "tools", "machine", "plan", "threads", "rounds", "seed")
        return json_types({name: getattr(self, name) for name in (*names, "taints")} | {"rows": rows})


def saved_profile(
    measured: Measurements, *, created: datetime, commit: str | None = None, command: Sequence[str] = ()
) -> SavedProfile:
    """Return what a run saves. commit: its name, by default that of git in the current folder, or of the CI service."""
    name, committed = (commit, "") if commit else checked_out()
    return SavedProfile(
        created.astimezone(UTC).isoformat(timespec="milliseconds"),
        name,
        committed,
        tuple(command),
        tool_versions(*_TOOLS),
        measured.machine,
        measured.plan,
        measured.threads,
        measured.rounds,
        measured.seed,
        measured.taints,
        tuple(map(_row, measured.files)),
    )


def _row(file: MeasuredFile) -> SavedRow:
    artifact = file.artifact
    return SavedRow(
        artifact.path.name,
        artifact.sha256,
        artifact.size,
        file.target,
        peak_bytes=file.peak_bytes,
        refused=file.refused,
        timings=file.timings,
        instructions=file.instructions,
    )


def checked_out() -> tuple[str, str]:
    """Return the commit of git in the current folder and its time; else that of the CI service; else empty texts."""
    # Neither the repository's hooks nor its settings may start a program.
    ask = ("git", "-c", "core.fsmonitor=false", "log", "-1", "--no-show-signature", "--format=%H %cI")
    try:
        done = subprocess.run(ask, capture_output=True, text=True, timeout=10, check=False)
        commit, _, committed = done.stdout.strip().partition(" ")
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        commit = committed = ""
    if commit and committed:
        return commit, datetime.fromisoformat(committed).astimezone(UTC).isoformat(timespec="seconds")
    return os.environ.get("GITHUB_SHA") or os.environ.get("CI_COMMIT_SHA") or "", ""


def path_for(folder: Path, created: datetime) -> Path:
    """Return the name of a run of that time: runs of a folder are in order by name."""
    return folder / f"{created.astimezone(UTC):%Y-%m-%dT%H-%M-%S}.{created.microsecond // 1000:03}Z.json"


def save(path: Path, profile: SavedProfile) -> None:
    """Write a run, whole or not at all; raises as `write_whole` does, which overwrites nothing here."""
    values = {"schema": SCHEMA} | profile.to_dict()
    write_whole(path, json_text(values | {"digest": _digest(values)}) + "\n")


def _digest(values: dict[str, Any]) -> str:
    """Return the SHA-256 of all keys but `digest`, as JSON with sorted keys."""
    rest = {key: value for key, value in values.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def load(path: Path) -> SavedProfile:
    """Read what `save` wrote; raises EvidenceError, with what to do, on anything else."""
    make = "`glyphpress profile FILE --save` makes one"
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise EvidenceError(f"{path}: no such file; {make}") from error
    try:
        values = json_value(content)
        if not isinstance(values, dict) or values.get("schema") != SCHEMA:
            raise EvidenceError(f"{path} {instead_of(path, SCHEMA) or f'is no saved profile; {make}'}")
        if values.get("digest") != _digest(values):
            raise EvidenceError(f"{path}: its digest is not that of its content, so it was changed; {make} again")
        return _profile(path, values)
    except RecursionError as error:
        raise EvidenceError(f"{path}: not a saved profile (it is nested too deeply); {make}") from error
    except (ValueError, KeyError, TypeError, AttributeError, TargetError) as error:
        raise EvidenceError(f"{path}: not a saved profile, or cut off ({plain_reason(error)}); {make}") from error


def _profile(path: Path, values: dict[str, Any]) -> SavedProfile:
    # The samples are read by themselves: the codec would copy them several times.
    measured = [(row["timings"], row["instructions"]) for row in values["rows"]]
    rows = [row | {"timings": None, "instructions": None} for row in values["rows"]]
    head = {key: value for key, value in values.items() if key not in ("schema", "digest")}
    profile = from_json(SavedProfile, json.dumps(head | {"rows": rows, "path": None}))
    datetime.fromisoformat(profile.created), datetime.fromisoformat(profile.committed or profile.created)
    read = (
        replace(row, timings=_timings(timings), instructions=_instructions(counts))
        for row, (timings, counts) in zip(profile.rows, measured, strict=True)
    )
    return replace(profile, rows=tuple(read), path=path)


def _timings(values: dict[str, Any] | None) -> Timings | None:
    if values is None:
        return None
    timings = Timings.from_dict(values)
    if len(timings.blocks) > MOST_ROUNDS or timings.samples_ns.min() < 1 or min(timings.batch, timings.inner) < 1:
        raise ValueError("it has more rounds than any run has, samples of no duration, or a batch below 1")
    # Computed here once, so that an invalid machine state is refused when the file is read.
    _ = timings.taints, timings.busy_cores
    return timings


def _instructions(values: dict[str, Any] | None) -> Instructions | None:
    if values is None:
        return None
    samples, facts = values["samples"], RuntimeFacts.from_dict(values["facts"])
    if not samples or any(type(count) is not int or count < 1 for count in (*samples, values["batch"])):
        raise ValueError("its instructions are no counts")
    return Instructions(str(values["artifact_sha256"]), facts, tuple(samples), values["batch"])


def paths_in(folder: Path) -> list[Path]:
    """Return the JSON files of a folder, in order by name; raises EvidenceError where there is no such folder."""
    if not folder.is_dir():
        raise EvidenceError(f"{folder}: no such folder; `glyphpress profile FILE --save {argument(folder)}` makes it")
    return sorted(path for path in folder.glob("[!.]*.json") if path.is_file())


def runs_in(folder: Path) -> list[SavedProfile]:
    """Return the runs of a folder by time: of their commits where all have one, else of the runs.

    Raises EvidenceError for a JSON file in it that is no saved profile, and where there is none at all.
    """
    runs = [load(path) for path in paths_in(folder)]
    if not runs:
        raise EvidenceError(
            f"{folder} holds no saved profile; `glyphpress profile FILE --save {argument(folder)}` makes one"
        )
    by_commit = all(run.committed for run in runs)
    return sorted(runs, key=lambda run: (instant(run.committed) if by_commit else 0.0, instant(run.created)))


def list_runs(folder: Path) -> tuple[list[SavedProfile], list[str]]:
    """Return the runs of a folder by name, and why each other JSON file in it is none."""
    runs, unreadable = list[SavedProfile](), list[str]()
    for path in paths_in(folder):
        try:
            runs.append(load(path))
        except EvidenceError as error:
            unreadable.append(str(error))
    return runs, unreadable


def instant(text: str) -> float:
    """Return an ISO time as seconds since 1970."""
    return datetime.fromisoformat(text).timestamp()


def find(word: Path) -> SavedProfile:
    """Return the run of a file, or the newest one of a folder; raises as `load` and `runs_in` do."""
    return max(runs_in(word), key=lambda run: instant(run.created)) if word.is_dir() else load(word)


def neighbours(*runs: SavedProfile) -> Iterator[SavedProfile]:
    """Yield the other runs in the folders of some runs; a file that is none of them is passed over."""
    own = {run.path.resolve() for run in runs if run.path}
    for folder in {path.parent for path in own}:
        yield from (run for run in list_runs(folder)[0] if run.path not in own)

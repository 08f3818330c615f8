"""What `glyphpress inspect` shows of a model file: its layers, tensors and metadata, and its size once packed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from targets.artifact import file_sha256, sidecar_of
from targets.errors import ArtifactError, translated
from targets.host.text import json_value
from targets.metadata import load_artifact
from toolchain.core.context import Progress, silent

LEVEL = 19
"""The highest level of zstd without `--ultra`, with which packages are usually made."""
QUICK = 8_000_000
"""Bytes that pack in two seconds on one core; larger files take about a second for each 1.2 MB more."""
_CHUNK = 1 << 16
"""Bytes that are packed at once: at most 0.3 s, in which Ctrl-C has to wait."""
_known: dict[str, int] = {}
"""Packed sizes by SHA-256, so that no content is packed twice in one run."""


@dataclass(frozen=True)
class InspectedLayer:
    """One operation: its output's shape without the batch axis, its weights, and its multiply-accumulates per image."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int = 0
    macs: int = 0


@dataclass(frozen=True)
class StoredTensor:
    """One tensor in the file. scales, zero_points: how many quantize it (one, or one per channel); 0 in float."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    scales: int = 0
    zero_points: int = 0


@dataclass(frozen=True)
class Inspection:
    """The contents of a model file.

    kind: a format's name, or the kind of a checkpoint. parameters: number of weights, without scales, zero points and
    shapes. tensors: the largest first. macs: multiply-accumulates per image, of convolutions and matrix products; None
    where the file holds weights alone, or an operator that cannot be counted. inputs, outputs: one line each. metadata:
    what the file or its sidecar says of how it was made. notes: what could not be found out, and how it could. packed:
    bytes once packed, None for a checkpoint and where that was not measured. sidecar: whether the one beside the file
    describes these bytes; nothing is taken from another one. None where there is none, and for a checkpoint.
    """

    path: Path
    kind: str
    bytes: int
    sha256: str
    parameters: int
    tensors: tuple[StoredTensor, ...]
    layers: tuple[InspectedLayer, ...] = ()
    macs: int | None = None
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    packed: int | None = None
    sidecar: Literal["own", "other file", "unreadable"] | None = None

    @classmethod
    def of(cls, path: Path, kind: str, tensors: Iterable[StoredTensor], **facts: Any) -> Inspection:
        """Return the inspection of a file with its size and digest."""
        ordered = tuple(sorted(tensors, key=lambda tensor: (-tensor.bytes, tensor.name)))
        return cls(path, kind, path.stat().st_size, file_sha256(path), tensors=ordered, **facts)

    @property
    def bytes_by_dtype(self) -> dict[str, int]:
        """Return the bytes that tensors of each dtype take, the largest first."""
        sizes: Counter[str] = Counter()
        for tensor in self.tensors:
            sizes[tensor.dtype] += tensor.bytes
        return dict(sizes.most_common())

    @property
    def quantized(self) -> tuple[StoredTensor, ...]:
        """Return the tensors that have scales."""
        return tuple(tensor for tensor in self.tensors if tensor.scales)


def uncounted_note(kinds: set[str]) -> tuple[str, ...]:
    """Return the note on operators that cannot be counted; empty where there are none."""
    return (f"MACs of {', '.join(sorted(kinds))} cannot be counted, so there is no sum",) if kinds else ()


def with_sidecar(inspection: Inspection) -> Inspection:
    """Return the inspection with what the file's sidecar says, or with a note that says why it is refused.

    A file that describes itself gets only the comparison with its float file from the sidecar.
    """
    path, source = inspection.path, sidecar_of(inspection.path)
    if not source.is_file():
        return inspection
    facts: Any = None
    try:
        with translated(ArtifactError):
            facts = json_value(source.read_bytes())
        load_artifact(path)
    except ArtifactError as error:
        other = isinstance(facts, dict) and facts.get("sha256") not in (None, inspection.sha256)
        note = f"{source.name} belongs to another file: {error}" if other else f"{source.name} is refused: {error}"
        return replace(inspection, sidecar="other file" if other else "unreadable", notes=(note, *inspection.notes))
    if inspection.metadata:
        facts = inspection.metadata | {key: facts[key] for key in ("fidelity",) if facts.get(key)}
    return replace(inspection, sidecar="own", metadata=facts)


def packed_size(path: Path, *, progress: Progress = silent) -> int:
    """Return the bytes of a file packed by zstd (RFC 8878) at LEVEL; progress is told only for files over QUICK."""
    digest = file_sha256(path)
    if digest not in _known:
        _known[digest] = _packed(path, progress)
    return _known[digest]


def shown_size(path: Path, *, asked: bool = False, progress: Progress = silent) -> int | None:
    """Return `packed_size` where it is asked for, already known or quick to measure; None otherwise."""
    if asked or path.stat().st_size <= QUICK:
        return packed_size(path, progress=progress)
    return _known.get(file_sha256(path)) if _known else None


def packed_bytes(content: bytes) -> int:
    """Return the size of bytes that are packed in the same way."""
    import zstandard

    return len(zstandard.ZstdCompressor(level=LEVEL).compress(content))


def _packed(path: Path, progress: Progress) -> int:
    import zstandard

    label, count = f"packing {path.name} (zstd, level {LEVEL}), MB", 0
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        packer = zstandard.ZstdCompressor(level=LEVEL).compressobj(size=size)
        while chunk := stream.read(_CHUNK):
            count += len(packer.compress(chunk))
            if size > QUICK:
                progress(label, stream.tell() // 10**6, size // 10**6)
    return count + len(packer.flush())

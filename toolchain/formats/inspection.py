"""What `glyphpress inspect` finds in a model file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from targets.artifact import file_sha256
from targets.host.text import json_value
from toolchain.core.context import Progress, silent


@dataclass(frozen=True)
class InspectedLayer:
    """One operation: its output's shape without the batch axis, its weights, its multiply-accumulates an image."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int = 0
    macs: int = 0


@dataclass(frozen=True)
class StoredTensor:
    """One tensor in the file. scales, zero_points: how many quantize it (one, or one a channel); 0 in float."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    scales: int = 0
    zero_points: int = 0


@dataclass(frozen=True)
class Inspection:
    """A model file, taken apart.

    kind: a format's name, or the kind of a checkpoint. packed: bytes once packed, None of a checkpoint and where that
    was not measured.
    parameters: weights, without scales, zero points and shapes. macs: multiply-accumulates an image, of convolutions
    and matrix products; None where the file holds weights alone, or an operator whose products nobody counts. inputs,
    outputs: one line each. tensors: the largest first. metadata: what stands beside the weights. notes: what
    could not be found out, and how it could.
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

    @property
    def bytes_by_dtype(self) -> dict[str, int]:
        """Return how many bytes of tensors there are of each dtype, the most first."""
        sizes: Counter[str] = Counter()
        for tensor in self.tensors:
            sizes[tensor.dtype] += tensor.bytes
        return dict(sizes.most_common())

    @property
    def quantized(self) -> tuple[StoredTensor, ...]:
        """Return the tensors that have scales."""
        return tuple(tensor for tensor in self.tensors if tensor.scales)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        return asdict(self) | {"path": str(self.path), "bytes_by_dtype": self.bytes_by_dtype}


def left_out(kinds: set[str]) -> tuple[str, ...]:
    """Return the note on operators whose products are not counted, if there are any."""
    return (f"MACs of {', '.join(sorted(kinds))} cannot be counted, so there is no sum",) if kinds else ()


def largest_first(tensors: list[StoredTensor]) -> tuple[StoredTensor, ...]:
    """Return the tensors in the order in which they are shown."""
    return tuple(sorted(tensors, key=lambda tensor: (-tensor.bytes, tensor.name)))


def sidecar_facts(path: Path) -> dict[str, Any]:
    """Return the sidecar of `path`, empty where there is none that can be read."""
    try:
        facts = json_value(path.with_name(path.name + ".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def compared(path: Path) -> dict[str, Any]:
    """Return the `fidelity` of an ONNX file, which stands in a sidecar of the same bytes and not in the file."""
    facts = sidecar_facts(path)
    same = facts.get("fidelity") and facts.get("sha256") == file_sha256(path)
    return {"fidelity": facts["fidelity"]} if same else {}


LEVEL = 19
"""The highest that zstd packs with without options of its own, as packages are made with."""
QUICK = 8_000_000
"""Bytes that pack in two seconds on one core; larger files take about a second for each 1.2 MB more."""
_CHUNK = 1 << 16
"""Bytes between two looks at Ctrl-C, which take 0.3 s at most."""
_known: dict[str, int] = {}
"""Packed sizes by SHA-256, so that no content is packed twice in one run."""


def packed_size(path: Path, *, progress: Progress = silent) -> int:
    """Return the bytes of a file packed by zstd (RFC 8878) at LEVEL; progress is of files that are not quick."""
    digest = file_sha256(path)
    if digest not in _known:
        _known[digest] = _packed(path, progress)
    return _known[digest]


def shown_size(path: Path, *, asked: bool = False, progress: Progress = silent) -> int | None:
    """Return `packed_size` where it was asked for, is known already or takes no time; None otherwise."""
    if asked or path.stat().st_size <= QUICK:
        return packed_size(path, progress=progress)
    return _known.get(file_sha256(path)) if _known else None


def packed_bytes(content: bytes) -> int:
    """Return the size of bytes packed in the same way."""
    import zstandard

    return len(zstandard.ZstdCompressor(level=LEVEL).compress(content))


def packed_remark(sizes: Iterable[int | None], ask: str) -> str:
    """Return what the packed sizes of a table are, or how to get those that were not measured."""
    measured = {size is not None for size in sizes}
    if measured == {True}:
        return f"packed: by zstd, level {LEVEL}"
    how = f"packed: by zstd, level {LEVEL}; not measured" if True in measured else "packed: not measured"
    return f"{how} for files over {QUICK // 10**6} MB, which takes long; {ask}"


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

"""What a file takes where it is packed to be shipped: in an update, a package, a firmware image."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from targets.artifact import file_sha256
from toolchain.core.context import Progress, silent

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

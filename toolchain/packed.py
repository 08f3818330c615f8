"""What a file takes where it is packed to be shipped: in an update, a package, a firmware image."""

from __future__ import annotations

from pathlib import Path

LEVEL = 19
"""The highest that zstd packs with without options of its own, as packages are made with."""


def packed_size(path: Path) -> int:
    """Return the bytes of a file packed by zstd (RFC 8878) at LEVEL."""
    return packed_bytes(path.read_bytes())


def packed_bytes(content: bytes) -> int:
    """Return the same of bytes."""
    import zstandard

    return len(zstandard.ZstdCompressor(level=LEVEL).compress(content))

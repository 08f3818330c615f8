"""What a packed file says that it unpacks to, weighed against its own size before anything is unpacked."""

from __future__ import annotations

from collections.abc import Iterable
from zipfile import ZipInfo

_ALWAYS = 64 << 20
_TIMES = 50


def unpacks_to_too_much(announced: int, packed: int) -> bool:
    """Return whether `packed` bytes on the disk cannot honestly be `announced` bytes in memory.

    Images and weights pack to a half or a tenth; a thousandth is a file that was made to fill the memory.
    """
    return announced > _ALWAYS and announced > _TIMES * packed


def announced_bytes(parts: Iterable[ZipInfo]) -> int:
    """Return what the parts of a zip archive unpack to, as its directory says."""
    return sum(part.file_size for part in parts)

"""The pictures of single characters, all in one data URI of a page."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

SIDE = 28
"""Pixels of a character's side."""
_BITS = 4
"""Bits of a pixel: 16 greys look like 256 and take half of the bytes, and a report shows many characters."""


class GlyphSheet:
    """Characters below each other in one picture: each once, however often it is shown."""

    def __init__(self) -> None:
        """Start without any."""
        self._tops: dict[bytes, int] = {}

    def top(self, image: NDArray[np.uint8]) -> int:
        """Return the row at which an image stands in the picture. image: uint8 [28, 28], white ink on black."""
        return self._tops.setdefault(image.tobytes(), len(self._tops) * SIDE)

    @property
    def height(self) -> int:
        """Rows of the picture; 0 without characters."""
        return len(self._tops) * SIDE

    @property
    def uri(self) -> str:
        """The picture as a `data:image/png` URI: dark on white, as on paper."""
        images = np.frombuffer(b"".join(self._tops), np.uint8).reshape(-1, SIDE)
        most = 2**_BITS - 1
        greys = ((255 - images.astype(np.uint16)) * most + 127) // 255
        packed = (greys[:, ::2] << _BITS | greys[:, 1::2]).astype(np.uint8)
        # Every line starts with the number of its filter; 0 is none.
        lines = np.pad(packed, ((0, 0), (1, 0))).tobytes()
        # Size, bits, grey, then compression, filter and interlacing in their only or simplest form.
        header = struct.pack(">IIBBBBB", SIDE, len(images), _BITS, 0, 0, 0, 0)
        parts = _chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(lines, 9)), _chunk(b"IEND", b"")
        png = b"\x89PNG\r\n\x1a\n" + b"".join(parts)
        return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

"""The picture of a single character, as a data URI for a page."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

_BITS = 4
"""Bits of a pixel: 16 greys look like 256 and take half of the bytes, and a report shows many characters."""


def glyph_uri(image: NDArray[np.uint8]) -> str:
    """Return an image as a `data:image/png` URI: dark on white, as on paper.

    image: uint8 [height, width], white ink on black; the width must be even. The picture is not scaled; the page should
    set `image-rendering: pixelated`.
    """
    height, width = image.shape
    most = 2**_BITS - 1
    greys = ((255 - image.astype(np.uint16)) * most + 127) // 255
    packed = (greys[:, ::2] << _BITS | greys[:, 1::2]).astype(np.uint8)
    # Every line starts with the number of its filter; 0 is none.
    lines = np.pad(packed, ((0, 0), (1, 0))).tobytes()
    # Size, bits, grey, then compression, filter and interlacing in their only or simplest form.
    header = struct.pack(">IIBBBBB", width, height, _BITS, 0, 0, 0, 0)
    parts = _chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(lines, 9)), _chunk(b"IEND", b"")
    png = b"\x89PNG\r\n\x1a\n" + b"".join(parts)
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

"""The agent opens, runs and times artifacts on the machine where it runs, for a host; this is the wire between both.

The agent needs Python 3.9 and the runtimes' own dependencies, so it runs on a board, in an emulator, or in a fresh
process of the host (`python -m targets.agent.serve`). It uses the same targets and sessions as the host.

A frame is the header's length (unsigned, 4 bytes, big-endian), the payload's length (8 bytes), the header in UTF-8, the
payload. An agent greets with GREETING first, so that what a shell prints before it (a banner, a warning) is skipped.
"""

from __future__ import annotations

import json
import struct
from typing import Any, BinaryIO

from targets.host.text import json_value

GREETING = b"\n\x00glyphpress-agent/1\n"
MOST_BEFORE_GREETING = 65_536
"""Bytes that may come before the greeting."""
IDLE_S = 1800
"""An agent that receives nothing for so long ends: the network may be gone without notice."""
TIMED_OUT = 124
"""Exit code of an agent whose request took longer than its `limit_s`, as of timeout(1)."""
_LENGTHS = struct.Struct(">IQ")
_HEADER_LIMIT, _PAYLOAD_LIMIT = 1 << 24, 1 << 32


class BrokenWire(Exception):
    """The other side is gone, or does not follow this protocol."""


def send(stream: BinaryIO, header: dict[str, Any], payload: bytes = b"") -> None:
    """Write one frame and flush it; raises BrokenWire when the other side is gone."""
    text = json.dumps(header, allow_nan=False).encode()
    try:
        stream.write(_LENGTHS.pack(len(text), len(payload)) + text)
        stream.write(payload)
        stream.flush()
    except (OSError, ValueError) as error:
        raise BrokenWire("the other side closed the connection") from error


def receive(stream: BinaryIO) -> tuple[dict[str, Any], bytes]:
    """Return header and payload of one frame; raises BrokenWire at the end of the stream, or where it is no frame."""
    size, payload = _LENGTHS.unpack(_exactly(stream, _LENGTHS.size))
    if size > _HEADER_LIMIT or payload > _PAYLOAD_LIMIT:
        raise BrokenWire("the other side does not follow this protocol")
    try:
        header = json_value(_exactly(stream, size))
    except (ValueError, RecursionError) as error:
        raise BrokenWire("the other side does not follow this protocol") from error
    if not isinstance(header, dict):
        raise BrokenWire("the other side does not follow this protocol")
    return header, _exactly(stream, payload)


def read_greeting(stream: BinaryIO) -> None:
    """Read up to the end of the greeting; raises BrokenWire, with what came instead, where none comes."""
    received = b""
    while not received.endswith(GREETING):
        byte = stream.read(1)
        received += byte
        if not byte or len(received) > MOST_BEFORE_GREETING:
            raise BrokenWire(" ".join(received.decode(errors="replace").split())[-300:] or "nothing answered")


def _exactly(stream: BinaryIO, count: int) -> bytes:
    parts, missing = [], count
    while missing:
        part = stream.read(min(missing, 1 << 20))
        if not part:
            raise BrokenWire("the other side closed the connection")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)

"""The agent opens, runs and times artifacts on the machine where it runs, for a host: the wire, and the host's side.

The agent needs Python 3.9 and the runtimes' own dependencies, so it runs on a board, in an emulator, or in a fresh
process of the host (`python -m targets.agent.serve`). It uses the same targets and sessions as the host.

A frame is the header's length (unsigned, 4 bytes, big-endian), the payload's length (8 bytes), the header in UTF-8, the
payload. An agent greets with GREETING first, so that what a shell prints before it (a banner, a warning) is skipped.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from targets import errors
from targets.artifact import Artifact
from targets.errors import ConnectionLost, RunFailed, translated
from targets.host.runtime_session import check_glyphs, require_finite
from targets.host.text import json_value
from targets.session import RuntimeFacts, Session, TimingPlan, Timings

Header = dict[str, Any]
"""The JSON part of a frame: a request with its fields, or an answer."""
Frame = tuple[Header, bytes]
"""Header and payload."""
T = TypeVar("T")

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


def send(stream: BinaryIO, header: Header, payload: bytes = b"") -> None:
    """Write one frame and flush it; raises BrokenWire when the other side is gone."""
    text = json.dumps(header, allow_nan=False).encode()
    try:
        stream.write(_LENGTHS.pack(len(text), len(payload)) + text)
        stream.write(payload)
        stream.flush()
    except (OSError, ValueError) as error:
        raise BrokenWire("the other side closed the connection") from error


def receive(stream: BinaryIO) -> Frame:
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


CHUNK = 256
"""Images in a frame (200 KB): small, so that a lost connection loses little."""
LIMIT_S = 600
"""Seconds that one request may take; the agent ends what takes longer."""


@dataclass(frozen=True)
class Answer:
    """What an agent answered to a request: values by name, and bytes. where: the channel's name in messages."""

    where: str
    header: Header
    payload: bytes

    def value(self, key: str, kind: type[T]) -> T:
        """Return a value of the header; raises RunFailed where it is missing or of another type."""
        with self.checked():
            value = self.header[key]
            if type(value) is not kind:
                raise TypeError(f"{key} is {value!r:.40}")
            return value

    def checked(self) -> AbstractContextManager[None]:
        """Raise RunFailed where the block finds that this is not what this version of the agent sends."""
        fix = "run `glyphpress targets setup` again"
        return translated(
            lambda reason: RunFailed(f"{self.where}: its answer is damaged or of another version ({reason}); {fix}")
        )


class Channel:
    """A process that speaks the wire on its stdin and stdout: an agent here, in an emulator, or behind ssh.

    where: the name in messages, such as a target word. Raises ConnectionLost where the process ends before it greets,
    with the last line of its stderr.
    """

    def __init__(self, command: Sequence[str], where: str, *, environment: dict[str, str] | None = None) -> None:
        """Start the process and wait for its greeting."""
        self.where, self.lost, self._turn = where, False, threading.Lock()
        self._limit_s = 0
        # A file, since a pipe that nobody reads blocks the writer when it is full.
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the channel)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=environment,
            start_new_session=True,
        )
        self._sink = cast("BinaryIO", self._process.stdin)
        self._source = cast("BinaryIO", self._process.stdout)
        try:
            read_greeting(self._source)
        except BrokenWire as error:
            raise self._lost(error) from error

    def request(self, name: str, payload: bytes = b"", *, limit_s: int = IDLE_S, **fields: object) -> Answer:
        """Send a request and return the answer.

        limit_s: seconds after which the agent gives up. Raises the agent's own TargetError, or ConnectionLost.
        """
        with self._turn:
            self._limit_s = limit_s
            try:
                send(self._sink, {"request": name, "limit_s": limit_s} | fields, payload)
                header, content = receive(self._source)
            except BrokenWire as error:
                raise self._lost(error) from error
            except BaseException:  # Ctrl-C: the answer would be taken for that of the next request
                self.lost = True
                self.close()
                raise
        if "error" in header:
            raise _error_of(header)
        return Answer(self.where, header, content)

    def close(self) -> None:
        """Hang up, which ends the agent, and wait for the process to end."""
        for stream in (self._sink, self._source):
            with suppress(OSError):  # the process may be gone, with unsent data left in the buffer
                stream.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stderr.close()

    def _lost(self, error: BrokenWire) -> RunFailed:
        """Return the error to raise, with the last line of stderr, which explains more than a closed pipe.

        A request that took too long is no ConnectionLost, since a second attempt would take as long.
        """
        if self.lost:
            return self._lost_because(str(error))
        self.lost = True
        # An agent that still reads ends when its stdin is closed.
        with suppress(OSError):
            self._sink.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(2)
        self._process.kill()
        if self._process.wait() == TIMED_OUT:
            self.close()
            return RunFailed(
                f"{self.where}: it took longer there than it may ({self._limit_s} s); ask for less at once"
            )
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        self.close()
        return self._lost_because(lines[-1] if lines else str(error))

    def _lost_because(self, reason: str) -> ConnectionLost:
        return ConnectionLost(f"{self.where}: {reason}; run the same command again to go on", reason)


def _error_of(header: Header) -> errors.TargetError:
    """Return the error that an agent reports; RunFailed where its name is not known here."""
    kind = getattr(errors, str(header["error"]), None)
    known = kind if isinstance(kind, type) and issubclass(kind, errors.TargetError) else RunFailed
    return known(str(header.get("message", "it failed without a message")))


class RemoteSession(Session):
    """An artifact that an agent has open, runs and times; only images and answers are transferred."""

    def __init__(
        self,
        channel: Channel,
        artifact: Artifact,
        *,
        path: str,
        runtime: str,
        threads: int = 1,
        facts: Mapping[str, str] | None = None,
    ) -> None:
        """Open the artifact on the agent's target `runtime`.

        path: the artifact's file on the agent's side. facts: replaces some of the session's facts, whose target is
        `channel.where`.
        """
        self.artifact, self._channel = artifact, channel
        self._session, self._path = 0, path
        answer = self._request("open", target=runtime, threads=threads, path=path, facts=artifact.facts())
        self._session = answer.value("session", int)
        with answer.checked():
            opened = RuntimeFacts.from_dict(answer.header["facts"])
            self.facts = replace(opened, **{"target": channel.where, **(facts or {})})  # type: ignore[arg-type]

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Session.run`."""
        check_glyphs(images, self.artifact)
        logits = np.empty((len(images), len(self.artifact.classes)), np.float32)
        for start in range(0, len(images), CHUNK):
            chunk = np.ascontiguousarray(images[start : start + CHUNK])
            answer = self._request("run", chunk.tobytes())
            with answer.checked():
                numbers = np.frombuffer(answer.payload, "<f4")
            if numbers.size != len(chunk) * logits.shape[1]:
                raise RunFailed(f"{self._channel.where}: answered {numbers.size} numbers for {len(chunk)} images")
            logits[start : start + len(chunk)] = numbers.reshape(len(chunk), -1)
        return require_finite(logits, self.artifact)

    def time(self, plan: TimingPlan) -> Timings:
        """See `Session.time`."""
        if self.facts.cost != "latency":
            raise RunFailed(f"{self.facts.target} is emulated, so it has no latency; count its instructions")
        answer = self._request("time", plan=asdict(plan))
        with answer.checked():
            samples = np.frombuffer(answer.payload, "<i8").tolist()
            return Timings.from_dict(answer.header | {"facts": asdict(self.facts), "samples_ns": samples})

    def __exit__(self, *_error: object) -> None:
        """Close the agent's session, unless the agent has ended; the channel stays open."""
        if not self._channel.lost:
            self._request("close")

    def _request(self, name: str, payload: bytes = b"", **fields: object) -> Answer:
        """Send a request about this session; raises the agent's TargetError, or ConnectionLost."""
        if self._session:
            fields["session"] = self._session
        try:
            return self._channel.request(name, payload, limit_s=LIMIT_S, **fields)
        except RunFailed as error:
            # The user knows the file by its path on this machine.
            raise type(error)(str(error).replace(self._path, str(self.artifact.path))) from error


def local_agent(where: str = "a fresh process") -> Channel:
    """Start an agent in a fresh process of this machine, in which nothing is loaded or cached yet."""
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return Channel(
        [sys.executable, "-P", "-m", "targets.agent.serve"], where, environment=os.environ | {"PYTHONPATH": paths}
    )

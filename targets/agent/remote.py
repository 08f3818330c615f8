"""The host's side of the wire: a channel to an agent, and the session that an agent has open."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from targets import errors
from targets.agent.wire import TIMED_OUT, BrokenWire, greeted, receive, send
from targets.artifact import Artifact
from targets.errors import ConnectionLost, RunFailed, translated
from targets.host.runtime_session import check_glyphs, finite
from targets.session import RuntimeFacts, Session, TimingPlan, Timings

CHUNK = 256
"""Images in a frame: 200 KB, so that a progress bar moves and a lost connection loses little."""
_AGAIN = "run `glyphpress targets setup` again"
LIMIT_S = 600
"""Of one request: what takes longer there is ended there."""


class Channel:
    """A process that speaks the wire on its stdin and stdout: an agent here, in an emulator, or behind ssh.

    where: the target word, for messages. Raises ConnectionLost where the process ends before it greets, with the last
    line that it said on stderr.
    """

    def __init__(self, command: Sequence[str], where: str, *, environment: dict[str, str] | None = None) -> None:
        """Start the process and wait for its greeting."""
        self.where, self.lost, self._turn = where, False, threading.Lock()
        # A file, since a pipe that nobody empties stops whoever fills it.
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the channel)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=environment,
            start_new_session=True,
        )
        self._sink = cast("BinaryIO", self._process.stdin)
        self._source = cast("BinaryIO", self._process.stdout)
        try:
            greeted(self._source)
        except BrokenWire as error:
            raise self._lost(error) from error

    def request(self, name: str, payload: bytes = b"", **words: Any) -> tuple[dict[str, Any], bytes]:
        """Ask and wait for the answer; raises the agent's own TargetError, or ConnectionLost."""
        with self._turn:
            try:
                send(self._sink, {"request": name} | words, payload)
                header, content = receive(self._source)
            except BrokenWire as error:
                raise self._lost(error) from error
            except BaseException:  # Ctrl-C: the answer is still to come, and nobody waits for it
                self.lost = True
                self.close()
                raise
        if "error" in header:
            raise _told(header)
        return header, content

    def close(self) -> None:
        """Hang up, which ends the agent, and wait for the process."""
        for stream in (self._sink, self._source):
            with suppress(OSError):  # what was never sent has nobody to read it
                stream.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._said.close()

    def _lost(self, error: BrokenWire) -> RunFailed:
        """Return what to raise: the last line on stderr says more than a closed pipe does.

        A request that took too long is no ConnectionLost: asked again it would take as long again.
        """
        if self.lost:
            return ConnectionLost(f"{self.where}: {error}; run the same command again to go on")
        self.lost = True
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(2)
        self._process.kill()
        if self._process.wait() == TIMED_OUT:
            self.close()
            return RunFailed(f"{self.where}: it took longer there than it may ({LIMIT_S} s); ask for less at once")
        self._said.seek(0)
        said = self._said.read().decode(errors="replace").strip().splitlines()
        self.close()
        return ConnectionLost(f"{self.where}: {said[-1] if said else error}; run the same command again to go on")


def _told(header: dict[str, Any]) -> errors.TargetError:
    """Return the error that an agent says it met; one whose name is not known here stays an error of the run."""
    kind = getattr(errors, str(header["error"]), None)
    known = kind if isinstance(kind, type) and issubclass(kind, errors.TargetError) else RunFailed
    return known(str(header.get("message", "it failed without a word")))


class RemoteSession(Session):
    """An artifact that an agent has open: everything happens there, only images and answers travel."""

    def __init__(
        self,
        channel: Channel,
        artifact: Artifact,
        *,
        path: str,
        runtime: str,
        threads: int = 1,
        facts: dict[str, Any] | None = None,
    ) -> None:
        """Open `path`, where the artifact lies there, on the agent's target `runtime`; `facts` replaces facts of it.

        The target of the facts becomes `channel.where`.
        """
        self.artifact, self._channel = artifact, channel
        self._session, self._path = 0, path
        opened, _ = self._request("open", target=runtime, threads=threads, path=path, facts=artifact.facts())
        with self._understood():
            self._session = opened["session"]
            self.facts = replace(RuntimeFacts.from_dict(opened["facts"]), **{"target": channel.where} | (facts or {}))

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Session.run`."""
        check_glyphs(images, self.artifact)
        logits = np.empty((len(images), len(self.artifact.classes)), np.float32)
        for start in range(0, len(images), CHUNK):
            chunk = np.ascontiguousarray(images[start : start + CHUNK])
            _, content = self._request("run", chunk.tobytes())
            with self._understood():
                answer = np.frombuffer(content, "<f4")
            if answer.size != len(chunk) * logits.shape[1]:
                raise RunFailed(f"{self._channel.where}: answered {answer.size} numbers for {len(chunk)} images")
            logits[start : start + len(chunk)] = answer.reshape(len(chunk), -1)
        return finite(logits, self.artifact)

    def time(self, plan: TimingPlan) -> Timings:
        """See `Session.time`."""
        if self.facts.cost != "latency":
            raise RunFailed(f"{self.facts.target} is emulated, so it has no latency; count its instructions")
        timings, samples = self._request("time", plan=asdict(plan))
        with self._understood():
            facts = {"facts": asdict(self.facts), "samples_ns": np.frombuffer(samples, "<i8").tolist()}
            return Timings.from_dict(timings | facts)

    def __exit__(self, *_error: object) -> None:
        """Close the session there, unless all there has ended; the channel stays."""
        if not self._channel.lost:
            self._request("close")

    def _understood(self) -> AbstractContextManager[None]:
        where = self._channel.where
        return translated(
            lambda why: RunFailed(f"{where}: its answer is damaged or of another version ({why}); {_AGAIN}")
        )

    def _request(self, name: str, payload: bytes = b"", **words: Any) -> tuple[dict[str, Any], bytes]:
        """Ask the agent about this session; raises its TargetError, or ConnectionLost."""
        if self._session:
            words["session"] = self._session
        try:
            return self._channel.request(name, payload, limit_s=LIMIT_S, **words)
        except RunFailed as error:
            # The user knows the file by its name here.
            raise type(error)(str(error).replace(self._path, str(self.artifact.path))) from error


def local_agent(where: str = "a fresh process") -> Channel:
    """Start an agent in a fresh process of this machine, so that nothing has warmed it."""
    home = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    return Channel([sys.executable, "-m", "targets.agent"], where, environment=os.environ | {"PYTHONPATH": paths})

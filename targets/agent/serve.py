"""The agent's side of the wire: one request after another, each answered by one frame.

A thread of its own reads the wire, so that the agent ends at once when the host hangs up, whatever it is doing: nothing
is left running on a board. Requests and answers are in `REQUESTS`.
"""

from __future__ import annotations

import hashlib
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import numpy as np

from targets import catalog
from targets.agent import GREETING, IDLE_S, TIMED_OUT, BrokenWire, Frame, Header, receive, send
from targets.artifact import Facts, from_facts
from targets.errors import RunFailed, TargetError
from targets.host.local_target import measure
from targets.host.machine import machine_state, pin
from targets.host.runtime_session import RuntimeSession
from targets.session import Session, TimingPlan
from targets.target import Target

HUNG_UP = 3

FIRST_MARK = 1_000_000
"""A write to descriptor FIRST_MARK + k is mark k for the emulator that counts instructions; it fails with EBADF."""
EMPTY_PAIRS = 5
"""Pairs of marks with nothing between them, which give the cost of a mark."""
PASSES = 4
"""Only the last one counts: in those before, Python specialises its bytecode and runtimes settle their memory."""


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer requests from `source` on `sink` until it ends."""
    requests: queue.Queue[Frame] = queue.Queue()
    threading.Thread(target=_listen, args=(source, requests), daemon=True).start()
    sink.write(GREETING)
    sink.flush()
    agent = Agent()
    while True:
        try:
            header, payload = requests.get(timeout=IDLE_S)
        except queue.Empty:
            return
        watchdog = threading.Timer(header.pop("limit_s", IDLE_S), os._exit, (TIMED_OUT,))
        watchdog.daemon = True
        watchdog.start()
        try:
            answer, content = agent.answer(header, payload)
        except Exception as error:  # noqa: BLE001 (the host gets the error, and raises it)
            kind = type(error).__name__ if isinstance(error, TargetError) else "RunFailed"
            answer, content = {"error": kind, "message": " ".join(f"{error}".split()) or repr(error)}, b""
        watchdog.cancel()
        try:
            send(sink, answer, content)
        except BrokenWire:
            return


def _listen(source: BinaryIO, requests: queue.Queue[Frame]) -> None:
    """Queue the frames; end the process when there are no more, even in the middle of an inference."""
    try:
        while True:
            requests.put(receive(source))
    except BrokenWire:
        os._exit(HUNG_UP)


class Agent:
    """The sessions that a host has open here."""

    def __init__(self) -> None:
        """Begin without any."""
        self._sessions: dict[int, Session] = {}
        # A browser's pages end with their target, so one target serves all sessions.
        self._targets: dict[str, Target] = {}
        self._opened = 0

    def answer(self, header: Header, payload: bytes) -> Frame:
        """Answer one request; raises what went wrong."""
        name = header.pop("request")
        if name not in REQUESTS:
            raise RunFailed(f"this agent knows no '{name}'; run `glyphpress targets setup` again")
        return REQUESTS[name](self, payload, **header)

    def hello(self, _payload: bytes) -> Frame:
        """Return the Python version and the state of this machine."""
        return {"python": sys.version.split()[0], "machine": machine_state()}, b""

    def pin(self, _payload: bytes, *, cores: list[int]) -> Frame:
        """Keep what is opened from now on on these cores."""
        pin(cores)
        return {}, b""

    def open(self, _payload: bytes, *, target: str, threads: int, path: str, facts: Facts) -> Frame:
        """Open an artifact that is a file here; facts: its sidecar."""
        if target not in self._targets:
            self._targets[target] = catalog.get(target)
        session = self._targets[target].open(from_facts(Path(path), facts), threads=threads)
        self._opened += 1
        self._sessions[self._opened] = session
        return {"session": self._opened, "facts": asdict(session.facts)}, b""

    def run(self, payload: bytes, *, session: int) -> Frame:
        """Return float32 logits [N, classes] of uint8 glyphs [N, 28, 28]."""
        images = np.frombuffer(payload, np.uint8).reshape(-1, 28, 28)
        logits = self._sessions[session].run(images)
        return {"images": len(images)}, logits.astype("<f4").tobytes()

    def time(self, _payload: bytes, *, session: int, plan: Header) -> Frame:
        """Return timings; the payload holds the samples as int64."""
        timings = self._sessions[session].time(TimingPlan(**plan)).to_dict()
        samples = np.array(timings.pop("samples_ns"), "<i8")
        return timings, samples.tobytes()

    def count(self, _payload: bytes, *, session: int, runs: int, batch: int) -> Frame:
        """Infer between marks at which an emulator writes down its count of instructions."""
        return {"marks": _marked_runs(self._sessions[session], runs, batch)}, b""

    def cold(self, _payload: bytes, *, target: str, threads: int, path: str, facts: Facts) -> Frame:
        """Return load, first run and peak memory of processes that do nothing else."""
        artifact, runtime = from_facts(Path(path), facts), catalog.get(target)
        start = runtime.cold_start(artifact, threads=threads)
        if start is None:
            raise RunFailed(f"{target} has no cold start; take a runtime's own target")
        return asdict(start) | {"peak_bytes": runtime.peak_memory(artifact, threads=threads)}, b""

    def measure(
        self, _payload: bytes, *, measurement: str, target: str, path: str, facts: Facts, settings: dict[str, int]
    ) -> Frame:
        """Take one of `MEASUREMENTS` in this process, which has done nothing before."""
        return measure(from_facts(Path(path), facts), target, measurement, settings), b""

    def have(self, _payload: bytes, *, file: str) -> Frame:
        """Return the path of a whole artifact (`SHA256.FORMAT`) that is here, else an empty path."""
        path = _folder() / file
        whole = path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == path.stem
        return {"path": str(path) if whole else ""}, b""

    def put(self, payload: bytes, *, file: str, sha256: str) -> Frame:
        """Store an artifact under its digest, whole or not at all."""
        if hashlib.sha256(payload).hexdigest() != sha256:
            raise RunFailed(f"{file} arrived damaged; run the same command again")
        path = _folder() / file
        part = path.with_name(f".part-{file}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _sweep(path.parent)
            part.write_bytes(payload)
            part.replace(path)
        except OSError as error:
            raise RunFailed(f"{path.parent}: {error.strerror}; free some space there") from error
        finally:
            if part.exists():
                part.unlink()
        return {"path": str(path)}, b""

    def close(self, _payload: bytes, *, session: int) -> Frame:
        """Close a session."""
        self._sessions.pop(session).__exit__(None, None, None)
        return {}, b""


REQUESTS: dict[str, Callable[..., Frame]] = {
    "hello": Agent.hello,
    "pin": Agent.pin,
    "open": Agent.open,
    "run": Agent.run,
    "time": Agent.time,
    "count": Agent.count,
    "cold": Agent.cold,
    "measure": Agent.measure,
    "have": Agent.have,
    "put": Agent.put,
    "close": Agent.close,
}


def _folder() -> Path:
    """Return the folder that keeps artifacts by digest: in the home that the host names."""
    return Path(os.environ.get("GLYPHPRESS_HOME", "~/.cache/glyphpress")).expanduser() / "artifacts"


def _sweep(folder: Path) -> None:
    """Remove the parts of files that killed agents left; writing one takes seconds."""
    for part in folder.glob(".part-*"):
        if time.time() - part.lstat().st_mtime > IDLE_S:
            part.unlink(missing_ok=True)


def _marked_runs(session: Session, runs: int, batch: int) -> list[str]:
    """Infer `runs` times on `batch` seeded images, between marks.

    Returns what happened between each two marks of the last pass, in order: `empty` for nothing, `run` for one
    inference.
    """
    if not isinstance(session, RuntimeSession):
        raise RunFailed(f"{session.facts.target} cannot be counted; take a runtime's own target")
    infer = session.prepared(batch)
    steps = ["empty"] * EMPTY_PAIRS + ["run"] * runs
    for _ in range(PASSES):
        _mark(0)
        for index, step in enumerate(steps, 1):
            if step == "run":
                infer()
            _mark(index)
    return steps


def _mark(index: int) -> None:
    with suppress(OSError):
        os.write(FIRST_MARK + index, b"")


if __name__ == "__main__":
    # Runtimes print on stdout too, but that is the wire: move it to another descriptor, and send prints to stderr.
    wire = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(os.fdopen(os.dup(0), "rb"), wire)

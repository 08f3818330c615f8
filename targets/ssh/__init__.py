"""Target `ssh://[user@]host[:port]`: a board that runs and times artifacts, pushed to it with the agent."""

from __future__ import annotations

import atexit
import shlex
import threading
import time
from collections.abc import Collection

from targets.agent import Answer, Channel, RemoteSession
from targets.artifact import Artifact, Format
from targets.catalog import DEFAULTS
from targets.errors import ConnectionLost, TargetError
from targets.host.local_target import cold_start_of
from targets.session import ColdStart
from targets.ssh.bundle import Address, installed_layers, set_up, ssh, ssh_error
from targets.target import Availability, Progress, Target, silent

RETRIES_S = (1, 3, 9)
"""Seconds to wait before each attempt to reconnect."""


class SshTarget(Target):
    """A board that is reached by ssh; the agent that `targets setup` copies there runs the files.

    ONNX files run in ONNX Runtime, TFLite files in LiteRT.
    """

    formats: frozenset[Format] = frozenset({"onnx", "ort", "tflite"})
    default_kernels = True

    def __init__(self, rest: str) -> None:
        """Take what follows `ssh:`; raises UnknownTarget."""
        self.address = Address.parse(rest)
        self.name = str(self.address)

    @property
    def host(self) -> str:
        """The board."""
        return self.name

    def isa(self) -> Collection[str]:
        """Return the board's CPU flags; raises TargetUnavailable or RunFailed."""
        answer = board(self.address).channel().request("hello")
        return tuple(answer.value("machine", dict).get("isa", ()))

    def set_up(self, *, force: bool = False, progress: Progress = silent) -> list[str]:
        """Push the agent and its wheels where they are missing."""
        return set_up(self.name, force=force, progress=progress).lines()

    def probe(self) -> Availability:
        """Return whether the board answers and is set up; takes a second or two, or as long as a time-out."""
        try:
            installed_layers(self.address)
        except TargetError as error:
            reason, _, fix = str(error).removeprefix(f"{self.name}: ").rpartition("; ")
            return Availability(False, reason, fix)
        return Availability(True)

    def open(self, artifact: Artifact, *, threads: int = 1) -> SshSession:
        """Push the artifact unless the board has it, and open it; raises TargetUnavailable or RunFailed."""
        return SshSession(board(self.address), artifact, threads)

    def pin(self, cores: Collection[int]) -> None:
        """Keep sessions on these cores of the board, after reconnecting too; raises RunFailed."""
        board(self.address).pin(cores)

    def cold_start(self, artifact: Artifact, *, threads: int = 1) -> ColdStart:
        """Return load and first inference of a fresh process on the board."""
        return cold_start_of(self._cold(artifact, threads))

    def peak_memory(self, artifact: Artifact, *, threads: int = 1) -> int:
        """Return by how many bytes opening the artifact raises the memory of a fresh process on the board."""
        return self._cold(artifact, threads).value("peak_bytes", int)

    def _cold(self, artifact: Artifact, threads: int) -> Answer:
        connection = board(self.address)
        path, runtime = connection.path(artifact), DEFAULTS[artifact.format]
        return connection.channel().request("cold", path=path, target=runtime, threads=threads, facts=artifact.facts())


class Board:
    """The connection to one board."""

    def __init__(self, address: Address) -> None:
        """Take the address; the first request connects."""
        self.address, self._lock = address, threading.Lock()
        self._channel: Channel | None = None
        self._cores: list[int] = []
        self._paths: dict[str, str] = {}

    def pin(self, cores: Collection[int]) -> None:
        """Keep sessions that are opened from now on on these cores; raises RunFailed if the board lacks one."""
        self._cores = sorted(cores)
        self.channel().request("pin", cores=self._cores)

    def channel(self) -> Channel:
        """Return the open channel, reconnected where it broke; raises TargetUnavailable or RunFailed."""
        with self._lock:
            if self._channel is None or self._channel.lost:
                home, layers = installed_layers(self.address)
                agent, wheels = (f"{home}/{name}" for name in layers)
                paths = f"PYTHONPATH={shlex.quote(f'{agent}:{wheels}')} GLYPHPRESS_HOME={shlex.quote(home)}"
                try:
                    self._channel = Channel(
                        ssh(self.address, f"{paths} exec python3 -m targets.agent.serve"), str(self.address)
                    )
                except ConnectionLost as error:
                    raise ssh_error(self.address, error.reason) from error
                if self._cores:
                    self._channel.request("pin", cores=self._cores)
            return self._channel

    def reconnect(self) -> Channel:
        """Reconnect after the connection broke; raises ConnectionLost after the last attempt."""
        for wait in RETRIES_S:
            time.sleep(wait)
            try:
                return self.channel()
            except TargetError as error:
                last = error
        raise ConnectionLost(f"{last}; nothing is left running there, run the same command again") from last

    def path(self, artifact: Artifact) -> str:
        """Return the artifact's path on the board; pushes the file if it is missing."""
        if artifact.sha256 not in self._paths:
            name = f"{artifact.sha256}.{artifact.format}"
            path = self.channel().request("have", file=name).value("path", str)
            if not path:
                content = artifact.path.read_bytes()
                path = self.channel().request("put", content, file=name, sha256=artifact.sha256).value("path", str)
            self._paths[artifact.sha256] = path
        return self._paths[artifact.sha256]

    def close(self) -> None:
        """Hang up, which ends the board's agent."""
        if self._channel:
            self._channel.close()


class SshSession(RemoteSession):
    """An artifact that is open on a board; it survives a broken connection."""

    def __init__(self, connection: Board, artifact: Artifact, threads: int) -> None:
        """Push the artifact to the board and open it."""
        self._connection, self._threads = connection, threads
        self.artifact = artifact
        try:
            self._open_on(connection.channel())
        except ConnectionLost:  # it broke while it was idle
            self._open_on(connection.reconnect())

    def _open_on(self, channel: Channel) -> None:
        path, runtime = self._connection.path(self.artifact), DEFAULTS[self.artifact.format]
        RemoteSession.__init__(self, channel, self.artifact, path=path, runtime=runtime, threads=self._threads)

    def _request(self, name: str, payload: bytes = b"", **fields: object) -> Answer:
        """Send a request; where the connection broke, reconnect, open the artifact again and repeat the request."""
        try:
            return super()._request(name, payload, **fields)
        except ConnectionLost:
            if name == "close":
                return Answer(self._channel.where, {}, b"")
            if name == "open":  # a file that crashes the agent would do so each time
                raise
        self._open_on(self._connection.reconnect())
        return super()._request(name, payload, **fields)


_BOARDS: dict[str, Board] = {}
_GUARD = threading.Lock()


def board(address: Address) -> Board:
    """Return this process's only connection to a board; it is closed when the process ends."""
    with _GUARD:
        if str(address) not in _BOARDS:
            _BOARDS[str(address)] = Board(address)
            atexit.register(_BOARDS[str(address)].close)
        return _BOARDS[str(address)]

"""Sets a board up by ssh: pushes the agent's modules, and the runtimes' wheels for its Python and architecture.

Only layers that are not there yet are pushed; another setup costs one round trip. This is the system's own ssh, with
the user's configuration, agent and known hosts.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import shlex
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

from targets.artifact import file_sha256
from targets.errors import RunFailed, TargetError, TargetUnavailable, UnknownTarget
from targets.host.cache import (
    ARCHITECTURES,
    PICTURE_PACKAGES,
    RUNTIME_PACKAGES,
    cached,
    install_wheels,
    installed_versions,
)
from targets.host.text import json_value

_FORM = re.compile(r"//(?:(?P<user>[\w.][\w.-]*)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[\w.][\w.-]*)(?::(?P<port>\d{1,5}))?/?")


@dataclass(frozen=True)
class Address:
    """A host, or a name in the user's ssh configuration, which also gives a missing user or port."""

    host: str
    user: str = ""
    port: int = 0

    @classmethod
    def parse(cls, rest: str) -> Address:
        """Parse what follows `ssh:` in a target word; raises UnknownTarget."""
        match = _FORM.fullmatch(rest)
        if not match or int(match["port"] or 1) not in range(1, 65536):
            raise UnknownTarget(f"'ssh:{rest}' is not an address; give ssh://[USER@]HOST[:PORT]")
        return cls(match["host"].strip("[]"), match["user"] or "", int(match["port"] or 0))

    def __str__(self) -> str:
        """Return the target word."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ssh://{self.destination.removesuffix(self.host)}{host}{f':{self.port}' * bool(self.port)}"

    @property
    def destination(self) -> str:
        """`user@host`, or the host alone."""
        return f"{self.user}@{self.host}" if self.user else self.host


COMMAND = "GLYPHPRESS_SSH"
"""Environment variable with the ssh command and its own arguments (`ssh -F FILE`)."""
OPTIONS = (
    *("-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15"),
    *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"),
    # Settings that a user's configuration may have for interactive shells.
    *("-o", "ClearAllForwardings=yes", "-o", "RemoteCommand=none"),
)
OLDEST = (3, 9)
_BOOTSTRAP = Path(__file__).with_name("bootstrap.py")

_MESSAGES: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        ("REMOTE HOST IDENTIFICATION HAS CHANGED",),
        "its host key has changed",
        "find out why; if it was reinstalled, remove the old key with `ssh-keygen -R` and run `ssh {host}` once",
    ),
    (("Host key verification failed",), "its host key is not known, or has changed", "check with `ssh {host}`"),
    (("Permission denied (",), "no key of yours is accepted", "add one with `ssh-copy-id {host}`"),
    (("Too many authentication failures",), "no key of yours is accepted", "name one in your ssh configuration"),
    (("Could not resolve hostname",), "no such host", "correct the name"),
    (("Connection refused",), "no ssh server answers", "start one there: `systemctl enable --now ssh`"),
    (
        ("timed out", "No route to host", "Network is unreachable"),
        "it does not answer",
        "check that it is on and connected to this network",
    ),
    (
        ("python3: not found", "python3: command not found"),
        "there is no python3 there",
        "install it there: `apt-get install python3`",
    ),
    (("No space left on device", "Disk quota exceeded"), "its disk is full", "free some space there"),
    (
        ("Read-only file system", "glyphpress: Permission denied", "Not a directory"),
        "its home cannot be written",
        "set XDG_CACHE_HOME there to a folder that can be written",
    ),
    (("failed to map segment",), "its home is mounted noexec", "set XDG_CACHE_HOME there to a folder that is not"),
)
"""Texts in the output of ssh or a board, what they mean, and the fix."""
REFUSED = "refused: "
"""What a message of our own programs there begins with that says what to do; versions.py and bootstrap.py write it."""


def ssh(address: Address, command: str) -> list[str]:
    """Return the arguments that run a shell command on the board; raises TargetUnavailable."""
    port = ["-p", str(address.port)] if address.port else []
    try:
        program = shlex.split(os.environ.get(COMMAND) or "ssh")
    except ValueError as error:
        raise TargetUnavailable(f"{COMMAND} is not a command ({error}); correct it") from error
    return [*program, *OPTIONS, *port, "--", address.destination, command]


def ssh_error(address: Address, output: str) -> TargetError:
    """Return the error for a message of ssh or the board: one line with the fix, or its last line as it is."""
    last = (output.strip().splitlines() or ["there was no message"])[-1]
    if last.startswith(REFUSED):
        return RunFailed(f"{address}: {last.removeprefix(REFUSED)}")
    login = f"-p {address.port} {address.destination}" if address.port else address.destination
    for texts, reason, fix in _MESSAGES:
        if any(text in output for text in texts):
            return TargetUnavailable(f"{address}: {reason}; {fix.format(host=login)}")
    return RunFailed(f"{address}: {last}; try `ssh {login}` by hand")


def run_on_board(address: Address, *arguments: str, source: IO[bytes] | None = None, program: Path = _BOOTSTRAP) -> str:
    """Run a program of this folder on the board with `source` as stdin.

    Returns its output, raises the error of `ssh_error`.
    """
    command = shlex.join(["python3", "-c", program.read_text(encoding="utf-8"), *arguments])
    return shell_on_board(address, command, source).decode(errors="replace")


def shell_on_board(address: Address, command: str, source: IO[bytes] | None = None) -> bytes:
    """Run a shell command on the board with `source` as stdin; returns its output, raises that of `ssh_error`."""
    try:
        done = subprocess.run(
            ssh(address, command), stdin=source or subprocess.DEVNULL, capture_output=True, check=False
        )
    except OSError as error:
        raise TargetUnavailable(f"{address}: no ssh here ({error}); `apt-get install openssh-client`") from error
    if done.returncode:
        raise ssh_error(address, done.stderr.decode(errors="replace"))
    return done.stdout


@dataclass(frozen=True)
class BoardFacts:
    """What a board has. folders: the names of its layers, whole ones only."""

    python: str
    architecture: str
    home: str
    folders: list[str]

    @property
    def release(self) -> str:
        """Its Python's major and minor version, as wheels name it."""
        return ".".join(self.python.split(".")[:2])


def board_facts(address: Address) -> BoardFacts:
    """Ask a board what it has.

    Raises TargetUnavailable where its Python is too old, RunFailed where its answer is not understood.
    """
    output = run_on_board(address, "facts")
    try:
        facts = BoardFacts(**json_value(output.splitlines()[-1]))
    except (ValueError, IndexError, TypeError) as error:
        last = repr((output.strip().splitlines() or [""])[-1][:80])
        fix = "make its login shell run python3"
        raise RunFailed(f"{address}: it answers {last} and does not describe itself; {fix}") from error
    if tuple(map(int, facts.python.split(".")[:2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise TargetUnavailable(f"{address}: its Python is {facts.python}; the agent needs {oldest} or newer there")
    return facts


ROOT = Path(__file__).parents[2]
MODULES = (
    "__init__",
    "agent/__init__",
    "agent/serve",
    "artifact",
    "catalog",
    "errors",
    "host/__init__",
    "host/local_target",
    "host/machine",
    "host/runtime_session",
    "host/text",
    "litert/__init__",
    "litert/cpu",
    "onnxruntime/__init__",
    "onnxruntime/cpu",
    "preprocess",
    "session",
    "target",
)
"""All modules of `targets` that the agent imports."""
BELOW = ("glyphpress/__init__", "glyphpress/extras", "glyphpress/registry")
"""What those import beside them."""


@dataclass(frozen=True)
class BoardFolder:
    """A folder that a board gets as a whole.

    made_of: text that identifies its content. build: writes the content to an archive of the given path. need: about
    how many bytes that takes on this machine.
    """

    kind: str
    made_of: str
    build: Callable[[Path], None]
    need: int = 0

    @property
    def name(self) -> str:
        """Its name on the board, which depends on its content."""
        return f"{self.kind}-{hashlib.sha256(self.made_of.encode()).hexdigest()[:16]}"

    @cached_property
    def archive(self) -> Path:
        """The archive to push, built on first use; raises TargetUnavailable where it cannot be built."""
        name = "layer.tar.gz"
        return cached(f"ssh/{self.kind}", self.made_of, lambda part: self.build(part / name), need=self.need) / name

    @property
    def sha256(self) -> str:
        """The digest of the archive."""
        return file_sha256(self.archive)


def agent_layer() -> BoardFolder:
    """Return the layer with the agent's modules."""
    paths = [ROOT / f"{module}.py" for module in (*BELOW, *(f"targets/{module}" for module in MODULES))]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()

    def build(archive: Path) -> None:
        archived(archive, {str(path.relative_to(ROOT)): path for path in paths})

    return BoardFolder("agent", digest, build)


def wheels_layer(python: str, architecture: str, *, pictures: bool = False) -> BoardFolder:
    """Return the layer with the runtimes for a Python (`3.11`) and an architecture; fetched when its archive is built.

    pictures: the layer with what reads pictures instead. Raises TargetUnavailable for an architecture without wheels.
    """
    if architecture not in ARCHITECTURES:
        raise TargetUnavailable(
            f"ONNX Runtime and LiteRT have no wheels for {architecture} (there is tflite-runtime 2.14 for Python 3.11, "
            "which the agent cannot use); install a 64-bit system there"
        )
    packages = PICTURE_PACKAGES if pictures else RUNTIME_PACKAGES
    made_of = " ".join((python, architecture, *installed_versions(packages)))

    def build(archive: Path) -> None:
        with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
            install_wheels(Path(folder), python, architecture, packages)
            files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
            archived(archive, {str(path.relative_to(folder)): path for path in files})

    return BoardFolder("pictures" if pictures else "wheels", made_of, build, need=300_000_000)


def archived(archive: Path, files: dict[str, Path]) -> None:
    """Write a tar archive that depends on names and contents alone, so that the same files give the same digest."""
    with (
        gzip.GzipFile(archive, "wb", compresslevel=4, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for name, path in files.items():
            content = path.read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))


@dataclass(frozen=True)
class SetUp:
    """The setup of a board. facts: before it. folders: its layers now. pushed: those that were missing, in bytes."""

    address: str
    facts: BoardFacts
    folders: tuple[str, ...]
    pushed: dict[str, int]

    def lines(self) -> list[str]:
        """Return a line for each layer that was pushed."""
        return [
            f"{self.address}: {name}, {f'{size / 1e3:,.0f} KB' if size < 1e7 else f'{size / 1e6:.0f} MB'}"
            for name, size in self.pushed.items()
        ]


def set_up(word: str, *, force: bool = False, progress: Callable[[str, int, int], None]) -> SetUp:
    """Push the agent and its wheels to a board where they are missing; `force` replaces them.

    The board verifies each layer by its digest, and keeps it whole or not at all. Raises UnknownTarget,
    TargetUnavailable, or RunFailed with the message of ssh or the board.
    """
    address = Address.parse(word.removeprefix("ssh:"))
    facts = board_facts(address)
    layers = layers_for(facts)
    missing = [layer for layer in layers if force or layer.name not in facts.folders]
    pushed = push(address, missing, progress)
    return SetUp(str(address), facts, tuple(layer.name for layer in layers), pushed)


def push(address: Address, folders: Sequence[BoardFolder], progress: Callable[[str, int, int], None]) -> dict[str, int]:
    """Push folders to a board, which verifies each by its digest; returns the bytes pushed by name."""
    for done, folder in enumerate(folders):
        progress(f"pushing to {address}", done, len(folders))
        with folder.archive.open("rb") as stream:
            run_on_board(address, "take", folder.name, folder.sha256, source=stream)
    if folders:
        progress(f"pushing to {address}", len(folders), len(folders))
    return {folder.name: folder.archive.stat().st_size for folder in folders}


def layers_for(facts: BoardFacts) -> tuple[BoardFolder, BoardFolder]:
    """Return the layers that a board of these facts needs."""
    return agent_layer(), wheels_layer(facts.release, facts.architecture)


def installed_layers(address: Address, facts: BoardFacts | None = None) -> tuple[str, list[str]]:
    """Return home and layers of a board that is set up; raises TargetUnavailable where it is not.

    facts: where they were asked for before.
    """
    facts = facts or board_facts(address)
    layers = layers_for(facts)
    if not {layer.name for layer in layers} <= set(facts.folders):
        raise TargetUnavailable(f"{address}: not set up for this version; run `glyphpress targets setup {address}`")
    return facts.home, [layer.name for layer in layers]

"""The system's own ssh, with the user's configuration, agent and known hosts; and what its errors mean."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from targets.errors import RunFailed, TargetError, TargetUnavailable, UnknownTarget

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

_MESSAGES: tuple[tuple[str, str, str], ...] = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its host key has changed",
        "find out why; if it was reinstalled, remove the old key with `ssh-keygen -R` and run `ssh {host}` once",
    ),
    ("Host key verification failed", "its host key is not known, or has changed", "check with `ssh {host}`"),
    ("Permission denied (", "no key of yours is accepted", "add one with `ssh-copy-id {host}`"),
    ("Too many authentication failures", "no key of yours is accepted", "name one in your ssh configuration"),
    ("Could not resolve hostname", "no such host", "correct the name"),
    ("Connection refused", "no ssh server answers", "start one there: `systemctl enable --now ssh`"),
    ("timed out", "it does not answer", "check that it is on and connected to this network"),
    ("No route to host", "it does not answer", "check that it is on and connected to this network"),
    ("Network is unreachable", "it does not answer", "check that it is on and connected to this network"),
    ("python3: not found", "there is no python3 there", "install it there: `apt-get install python3`"),
    ("python3: command not found", "there is no python3 there", "install it there: `apt-get install python3`"),
    ("No space left on device", "its disk is full", "free some space there"),
    ("Disk quota exceeded", "its disk is full", "free some space there"),
    ("Read-only file system", "its home cannot be written", "set XDG_CACHE_HOME there to a folder that can be written"),
    (
        "glyphpress: Permission denied",
        "its home cannot be written",
        "set XDG_CACHE_HOME there to a folder that can be written",
    ),
    ("Not a directory", "its home cannot be written", "set XDG_CACHE_HOME there to a folder that can be written"),
    ("failed to map segment", "its home is mounted noexec", "set XDG_CACHE_HOME there to a folder that is not"),
)


def ssh(address: Address, command: str) -> list[str]:
    """Return the arguments that run a shell command on the board; raises TargetUnavailable."""
    port = ["-p", str(address.port)] if address.port else []
    try:
        program = shlex.split(os.environ.get(COMMAND) or "ssh")
    except ValueError as error:
        raise TargetUnavailable(f"{COMMAND} is not a command ({error}); correct it") from error
    return [*program, *OPTIONS, *port, "--", address.destination, command]


def explained(address: Address, output: str) -> TargetError:
    """Return the error for a message of ssh or the board: one line with the fix, or its last line as it is."""
    login = f"-p {address.port} {address.destination}" if address.port else address.destination
    for text, reason, fix in _MESSAGES:
        if text in output:
            return TargetUnavailable(f"{address}: {reason}; {fix.format(host=login)}")
    last = (output.strip().splitlines() or ["there was no message"])[-1]
    return RunFailed(f"{address}: {last}; try `ssh {login}` by hand")


def run_on_board(address: Address, *arguments: str, source: IO[bytes] | None = None) -> str:
    """Run `bootstrap.py` on the board with `source` as stdin; returns its output, raises as `explained` says."""
    command = shlex.join(["python3", "-c", _BOOTSTRAP.read_text(encoding="utf-8"), *arguments])
    try:
        done = subprocess.run(
            ssh(address, command), stdin=source or subprocess.DEVNULL, capture_output=True, check=False
        )
    except OSError as error:
        raise TargetUnavailable(f"{address}: no ssh here ({error}); `apt-get install openssh-client`") from error
    if done.returncode:
        raise explained(address, done.stderr.decode(errors="replace"))
    return done.stdout.decode(errors="replace")


def board_facts(address: Address) -> dict[str, Any]:
    """Return facts of the board: python, architecture, home, there (its layers).

    Raises TargetUnavailable where its Python is too old, RunFailed where its answer is not understood.
    """
    output = run_on_board(address, "facts")
    try:
        facts: dict[str, Any] = json.loads(output.splitlines()[-1])
    except (ValueError, IndexError) as error:
        last = repr((output.strip().splitlines() or [""])[-1][:80])
        fix = "make its login shell run python3"
        raise RunFailed(f"{address}: it answers {last} and does not describe itself; {fix}") from error
    if tuple(map(int, facts["python"].split(".")[:2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise TargetUnavailable(f"{address}: its Python is {facts['python']}; the agent needs {oldest} or newer there")
    return facts

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
    """A host, or a name in the user's ssh configuration; no user or port leaves both to that configuration."""

    host: str
    user: str = ""
    port: int = 0

    @classmethod
    def parse(cls, rest: str) -> Address:
        """Read what follows `ssh:` in a target word; raises UnknownTarget."""
        match = _FORM.fullmatch(rest)
        if not match or int(match["port"] or 1) not in range(1, 65536):
            raise UnknownTarget(f"no address 'ssh:{rest}'; give ssh://[USER@]HOST[:PORT]")
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
"""The environment variable with the ssh command, with words of its own (`ssh -F FILE`)."""
OPTIONS = (
    *("-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15"),
    *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"),
    # What a user's configuration may ask for in a shell of his own.
    *("-o", "ClearAllForwardings=yes", "-o", "RemoteCommand=none"),
)
OLDEST = (3, 9)
_BOOTSTRAP = Path(__file__).with_name("bootstrap.py")

_SAID: tuple[tuple[str, str, str], ...] = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its host key is another than before",
        "find out why; if it was installed anew, `ssh-keygen -R` its old key and `ssh {host}` once",
    ),
    ("Host key verification failed", "its host key is not known, or another than before", "look with `ssh {host}`"),
    ("Permission denied (", "no key of yours is accepted", "add one with `ssh-copy-id {host}`"),
    ("Too many authentication failures", "no key of yours is accepted", "name one in your ssh configuration"),
    ("Could not resolve hostname", "no such host", "correct the name"),
    ("Connection refused", "no ssh server answers", "start one there: `systemctl enable --now ssh`"),
    ("timed out", "it does not answer", "is it on, and on this network?"),
    ("No route to host", "it does not answer", "is it on, and on this network?"),
    ("Network is unreachable", "it does not answer", "is it on, and on this network?"),
    ("python3: not found", "there is no python3 there", "install it there: `apt-get install python3`"),
    ("python3: command not found", "there is no python3 there", "install it there: `apt-get install python3`"),
    ("No space left on device", "its disk is full", "free some space there"),
    ("Disk quota exceeded", "its disk is full", "free some space there"),
    ("Read-only file system", "its home cannot be written", "let XDG_CACHE_HOME there name a folder that can"),
    ("glyphpress: Permission denied", "its home cannot be written", "let XDG_CACHE_HOME there name a folder that can"),
    ("Not a directory", "its home cannot be written", "let XDG_CACHE_HOME there name a folder that can"),
    ("failed to map segment", "its home is mounted noexec", "let XDG_CACHE_HOME there name a folder that is not"),
)


def ssh(address: Address, command: str) -> list[str]:
    """Return the words that run a shell command on the board."""
    port = ["-p", str(address.port)] if address.port else []
    try:
        program = shlex.split(os.environ.get(COMMAND) or "ssh")
    except ValueError as error:
        raise TargetUnavailable(f"{COMMAND} is no command ({error}); correct it") from error
    return [*program, *OPTIONS, *port, "--", address.destination, command]


def explained(address: Address, said: str) -> TargetError:
    """Return the error that ssh's or the board's last words mean: one line with the fix, or those words as they are."""
    login = f"-p {address.port} {address.destination}" if address.port else address.destination
    for words, reason, fix in _SAID:
        if words in said:
            return TargetUnavailable(f"{address}: {reason}; {fix.format(host=login)}")
    last = (said.strip().splitlines() or ["nothing was said"])[-1]
    return RunFailed(f"{address}: {last}; try `ssh {login}` by hand")


def run_on_board(address: Address, *words: str, source: IO[bytes] | None = None) -> str:
    """Run `bootstrap.py` on the board with these words and return what it printed; raises what `explained` says."""
    command = shlex.join(["python3", "-c", _BOOTSTRAP.read_text(encoding="utf-8"), *words])
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
    """Return what the board is and has: python, architecture, home, there; raises TargetUnavailable for an old one."""
    said = run_on_board(address, "facts")
    try:
        known: dict[str, Any] = json.loads(said.splitlines()[-1])
    except (ValueError, IndexError) as error:
        heard = repr((said.strip().splitlines() or [""])[-1][:80])
        fix = "let its shell run python3 for whoever logs in"
        raise RunFailed(f"{address}: it answers {heard} in place of what it is; {fix}") from error
    if tuple(map(int, known["python"].split(".")[:2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise TargetUnavailable(f"{address}: its Python is {known['python']}; the agent needs {oldest} or newer there")
    return known

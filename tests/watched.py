"""What a program writes and whom it speaks to, as the kernel sees it (strace)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

_OPEN = ("open", "openat", "openat2")
_CHANGE = ("creat", "truncate", "mkdir", "mkdirat", "mknod", "mknodat", "unlink", "unlinkat", "rmdir")
_RENAME = ("rename", "renameat", "renameat2")
_LINK = ("link", "linkat", "symlink", "symlinkat")
_NETWORK = ("connect", "bind", "sendto", "sendmsg", "sendmmsg")
# Not every processor has all of them: `?` lets strace pass over those that it does not know.
_TRACE = ",".join(f"?{name}" for name in (*_OPEN, *_CHANGE, *_RENAME, *_LINK, *_NETWORK))

_CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+)")
_WRITES = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC")
# A path follows the folder that it is relative to, where the call has one.
_PATH = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')
_LOCAL = re.compile(r"sa_family=AF_(UNIX|NETLINK)")


@dataclass(frozen=True)
class Seen:
    """written: paths that were opened for writing, made, renamed or removed. network: calls that name an address."""

    code: int
    out: str
    err: str
    written: frozenset[str]
    network: tuple[str, ...]


def require_strace() -> None:
    """Skip the test, loudly, where no program can be watched."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: what is written and sent is NOT checked")
    tried = subprocess.run(["strace", "-qq", "-o", os.devnull, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        reason = tried.stderr.strip().splitlines()[-1:]
        pytest.skip(f"strace may not watch processes here ({reason}): what is written and sent is NOT checked")


def watch(command: Sequence[str], log: Path, cwd: Path, environment: Mapping[str, str], timeout: float) -> Seen:
    """Run a command to its end with all its children. log: a new folder for what strace writes."""
    log.mkdir()
    strace = ["strace", "-ff", "--seccomp-bpf", "-qq", "-y", "-e", f"trace={_TRACE}", "-o", str(log / "calls")]
    done = subprocess.run(
        [*strace, *command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    lines = [line for thread in log.iterdir() for line in thread.read_text(errors="replace").splitlines()]
    calls = [call.groups() for line in lines if (call := _CALL.match(line))]
    written = {path for call in calls for path in _written(*call, cwd)}
    # A question that nobody answered was asked all the same.
    network = [f"{name}({given})" for name, given, _ in calls if "sa_family=" in given and not _LOCAL.search(given)]
    return Seen(done.returncode, done.stdout, done.stderr, frozenset(written), tuple(network))


def _written(name: str, given: str, result: str, cwd: Path) -> set[str]:
    if name in _NETWORK or result.startswith("-") or (name in _OPEN and not _WRITES.search(given)):
        return set()
    paths = _PATH.findall(given)
    return {os.path.normpath(cwd / folder / path) for folder, path in (paths[-1:] if name in _LINK else paths)}

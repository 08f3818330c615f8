"""A stand-in for a Raspberry Pi: an OpenSSH server on loopback whose shell is Debian's arm64 root folder, under QEMU.

Its own port, keys and configuration, a mount namespace for each connection, and nothing left when it ends. What it runs
is emulated: its answers are true, its times mean nothing.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from targets.arm64.root import PROCESSORS, arm64_root

PROGRAMS = {"sshd": "openssh-server", "ssh": "openssh-client", "qemu-aarch64-static": "qemu-user-static"}
PROGRAMS |= {"mmdebstrap": "mmdebstrap", "unshare": "util-linux"}
SBIN = "/usr/sbin:/sbin:" + os.environ.get("PATH", "")

# The header of a 64-bit Arm program and the bits of it that count (docs of the kernel's binfmt_misc, QEMU's
# qemu-binfmt-conf.sh). P and F: the program's own name is kept, the interpreter is opened before the root changes.
MAGIC = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00" + r"\xff" * 8 + r"\xfe\xff\xff\xff"
# Every connection gets namespaces of its own: what it mounts goes with it, and the shared root is never written.
# LiteRT takes other kernels, which round otherwise, where /sys is empty.
ENTER = r"""#!/bin/sh
exec unshare -Urm --propagation private sh -ec '
mkdir -p {folder}/binfmt
mount -t binfmt_misc none {folder}/binfmt
cat {folder}/register > {folder}/binfmt/register
mount --rbind /dev {root}/dev
mount --rbind /sys {root}/sys
mount --rbind /proc {root}/proc
mount --bind {folder}/cpuinfo {root}/proc/cpuinfo
{home}
cd /
exec env -i PATH=/root/bin:/usr/bin:/bin HOME=/root BOARD={mark} QEMU_CPU=cortex-a72 \
    {chroot} {root} /bin/sh -c "$SSH_ORIGINAL_COMMAND"'
"""


@dataclass(frozen=True)
class Board:
    """A running server. ssh: the command that reaches it, for GLYPHPRESS_SSH; home: /root there."""

    word: str
    ssh: str
    folder: Path
    home: Path
    server: subprocess.Popen[bytes]
    mark: str

    def running(self) -> list[int]:
        """Return the processes that run inside."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if f"BOARD={self.mark}".encode() in path.read_bytes():
                    found.append(int(path.parent.name))
        return found

    def emptied(self, seconds: float = 10) -> bool:
        """Wait until nothing runs inside; say whether that came."""
        until = time.monotonic() + seconds
        while self.running() and time.monotonic() < until:
            time.sleep(0.1)
        return not self.running()

    def cut(self) -> None:
        """Kill the server's sessions as a cable that is pulled does: at once, and without a word."""
        for pid in _children(self.server.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    """Return a process's descendants that are sshd's, the lowest first."""
    own = _told(f"/proc/{pid}/task/{pid}/children").split()
    found = [one for child in own for one in (*_children(int(child)), int(child))]
    return [one for one in found if _told(f"/proc/{one}/comm").startswith("sshd")]


def _told(path: str) -> str:
    """Return what the system tells of a process: nothing where it has just ended."""
    with suppress(OSError):
        return Path(path).read_text()
    return ""


def needs() -> None:
    """Skip, loudly, where there can be no board; fail in CI, which installs what it needs."""
    missing = [package for program, package in PROGRAMS.items() if not shutil.which(program, path=SBIN)]
    able = subprocess.run(["unshare", "-Urm", "true"], capture_output=True, check=False).returncode == 0
    if missing or not able:
        reason = f"`apt-get install {' '.join(missing)}`" if missing else "user namespaces are not allowed here"
        message = f"no stand-in for a Raspberry Pi ({reason}): ssh targets NOT checked"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


@contextmanager
def board(folder: Path, *, home: str = "") -> Iterator[Board]:
    """Start a board whose files are in `folder`; `home`: the mount options of a tmpfs to have as /root in its place."""
    needs()
    root, mark = arm64_root(), uuid.uuid4().hex
    (folder / "home").mkdir(parents=True)
    (folder / "cpuinfo").write_text(PROCESSORS["cortex-a72"].cpuinfo())
    mount = f"mount -t tmpfs -o {home} none {root}/root" if home else f"mount --bind {folder}/home {root}/root"
    paths = {name: shutil.which(name, path=SBIN) for name in ("qemu-aarch64-static", "chroot")}
    (folder / "register").write_text(f":arm64:M::{MAGIC}:{MASK}:{paths['qemu-aarch64-static']}:PF")
    (folder / "enter").write_text(ENTER.format(folder=folder, root=root, home=mount, chroot=paths["chroot"], mark=mark))
    (folder / "enter").chmod(0o755)
    for key in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    port = _free_port()
    _configure(folder, port)
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    command = [str(shutil.which("sshd", path=SBIN)), "-D", "-e", "-f", str(folder / "sshd_config")]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL)
    one = Board(f"ssh://127.0.0.1:{port}", f"ssh -F {folder}/ssh_config", folder, folder / "home", server, mark)
    try:
        _await(port, one)
        yield one
    finally:
        one.cut()
        server.terminate()
        server.wait(10)
        for pid in one.running():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _configure(folder: Path, port: int) -> None:
    (folder / "authorized_keys").write_text((folder / "user.pub").read_text())
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized_keys\n"
        f"PidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin yes\nPasswordAuthentication no\n"
        f"KbdInteractiveAuthentication no\nForceCommand {folder}/enter\n"
    )
    (folder / "ssh_config").write_text(
        f"IdentityFile {folder}/user\nIdentitiesOnly yes\nIdentityAgent none\nUserKnownHostsFile {folder}/known_hosts\n"
        "GlobalKnownHostsFile none\nStrictHostKeyChecking yes\n"
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await(port: int, one: Board) -> None:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError(f"sshd does not listen: {(one.folder / 'log').read_text()}")

"""What is emulated: processors, and a root folder with Debian's arm64 Python and the runtimes in the host's versions.

Runtimes choose kernels by /proc/cpuinfo and by the hardware capabilities that QEMU reports. The host's own file, of
another architecture, makes ONNX Runtime crash, so each processor gets that of a board.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from targets.host.cache import cached, ran
from targets.host.wheels import installed, unpack
from targets.target import Progress, silent

_BASE = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"


@dataclass(frozen=True)
class Processor:
    """A processor by QEMU's name, with its part number (Arm's MIDR_EL1), a board that has it, and its CPU flags."""

    name: str
    part: str
    board: str
    features: str
    cores: int = 4

    def cpuinfo(self) -> str:
        """Return /proc/cpuinfo of the board."""
        core = (
            f"BogoMIPS\t: 108.00\nFeatures\t: {self.features}\nCPU implementer\t: 0x41\nCPU architecture: 8\n"
            f"CPU variant\t: 0x0\nCPU part\t: {self.part}\nCPU revision\t: 3\n\n"
        )
        return "".join(f"processor\t: {k}\n{core}" for k in range(self.cores)) + f"Model\t\t: {self.board}\n"


PROCESSORS = {
    processor.name: processor
    for processor in (
        Processor("cortex-a53", "0xd03", "Raspberry Pi Zero 2 W Rev 1.0", "fp asimd evtstrm crc32 cpuid"),
        Processor("cortex-a72", "0xd08", "Raspberry Pi 4 Model B Rev 1.4", "fp asimd evtstrm crc32 cpuid"),
        Processor(
            "cortex-a76",
            "0xd0b",
            "Raspberry Pi 5 Model B Rev 1.0",
            f"{_BASE} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp",
        ),
    )
}


SUITE = "bookworm"
PYTHON = "3.11"
"""The suite's version."""
PACKAGES = (
    *("base-files", "bash", "dash", "coreutils", "procps", "python3-minimal", "libpython3-stdlib"),
    *("libgomp1", "libstdc++6", "zlib1g"),
)
SITE = "opt/site"
"""The folder of the wheels in the root."""

NEEDED_BYTES = 350_000_000
"""Disk space, with temporary files of pip and mmdebstrap."""


def arm64_root(progress: Progress = silent) -> Path:
    """Return the root folder, after building it in the user's cache where it is missing: 10 s and 280 MB.

    This needs mmdebstrap, pip and the network, but no privileges. Raises TargetUnavailable.
    """

    def build(part: Path) -> None:
        progress("arm64 root", 0, 2)
        include = f"--include={','.join(PACKAGES)}"
        ran(["mmdebstrap", "--architectures=arm64", "--variant=extract", include, SUITE, part], "mmdebstrap")
        progress("arm64 root", 1, 2)
        unpack(part / SITE, PYTHON, "aarch64")
        progress("arm64 root", 2, 2)

    return cached("arm64/root", " ".join((SUITE, *PACKAGES, *installed())), build, need=NEEDED_BYTES)

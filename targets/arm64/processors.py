"""The processors that are emulated, and what the kernel of a board with each of them says in /proc/cpuinfo.

Runtimes choose kernels by these lines and by the hardware capabilities that QEMU gives; the host's own lines, of
another architecture, make ONNX Runtime crash.
"""

from __future__ import annotations

from dataclasses import dataclass

_BASE = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"


@dataclass(frozen=True)
class Processor:
    """A processor by QEMU's name: its part number (Arm's MIDR_EL1), its cores on that board, its feature flags."""

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

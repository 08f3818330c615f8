"""Targets `arm64:cortex-a53|a72|a76`: answers and instruction counts of an artifact on an emulated Arm processor.

QEMU runs the agent in a root folder with Debian's arm64 Python and the runtimes in the host's versions. Emulated time
means nothing (a float inference takes some hundred times longer than on the host), so there is no latency. Counts of
executed instructions are exact in one thread, and show which kernels are used: int8 on a Cortex-A76, which multiplies
bytes in one instruction, takes a third of the instructions on a Cortex-A72, which does not.

Runtimes choose kernels by /proc/cpuinfo and by the hardware capabilities that QEMU reports. The host's own file, of
another architecture, makes ONNX Runtime crash, so each processor gets that of a board.
"""

from __future__ import annotations

import compileall
import os
import py_compile
import shutil
import sys
import tempfile
import weakref
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

from targets.agent import Channel, RemoteSession
from targets.artifact import Artifact, Format
from targets.catalog import DEFAULTS
from targets.errors import RunFailed, TargetUnavailable, UnknownTarget, nearest
from targets.host.cache import cached, install_wheels, installed_versions, run_program
from targets.session import Cost, Instructions
from targets.target import Availability, Progress, Target, silent

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

NEEDED_BYTES = 400_000_000
"""Disk space, with temporary files of pip and mmdebstrap."""


def arm64_root(progress: Progress = silent) -> Path:
    """Return the root folder, after building it in the user's cache where it is missing: 20 s and 300 MB.

    This needs mmdebstrap, pip and the network, but no privileges. Raises TargetUnavailable.
    """

    def build(part: Path) -> None:
        progress("arm64 root", 0, 2)
        include = f"--include={','.join(PACKAGES)}"
        run_program(["mmdebstrap", "--architectures=arm64", "--variant=extract", include, SUITE, part], "mmdebstrap")
        progress("arm64 root", 1, 2)
        install_wheels(part / SITE, PYTHON, "aarch64")
        _compile(part / SITE, part / f"usr/lib/python{PYTHON}")
        progress("arm64 root", 2, 2)

    made_of = SUITE, *PACKAGES, *installed_versions(), "compiled"
    return cached("arm64/root", " ".join(made_of), build, need=NEEDED_BYTES)


def _compile(*folders: Path) -> None:
    """Compile modules where this Python writes what the emulated one reads: it starts a third sooner then."""
    if f"{sys.version_info.major}.{sys.version_info.minor}" != PYTHON:
        return
    for folder in folders:
        compileall.compile_dir(folder, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)


QEMU, COMPILER = "qemu-aarch64", "gcc"
DEBIAN_PACKAGES = {QEMU: "qemu-user", "mmdebstrap": "mmdebstrap", COMPILER: "gcc libc6-dev"}
"""Program -> Debian packages."""
SOURCE = Path(__file__).with_name("count.c")


class Arm64Target(Target):
    """A 64-bit Arm processor emulated by QEMU, which counts instructions; its root folder is built on first use.

    ONNX files run in ONNX Runtime, TFLite files in LiteRT, in the versions that the host has. One emulator serves all
    sessions of a target; it ends with the target.
    """

    formats: frozenset[Format] = frozenset({"onnx", "ort", "tflite"})
    members = tuple(PROCESSORS)
    cost: Cost = "instructions"
    default_kernels = True

    def __init__(self, processor: str, *, progress: Progress = silent) -> None:
        """Take a processor by QEMU's name; raises UnknownTarget with the nearest."""
        if processor not in PROCESSORS:
            near = nearest(processor, PROCESSORS, "`glyphpress targets list` shows them")
            raise UnknownTarget(f"no emulated processor '{processor}'; {near}")
        self.name, self.progress = f"arm64:{processor}", progress
        self._processor = PROCESSORS[processor]
        self._channel: Channel | None = None

    def probe(self) -> Availability:
        """Return whether the programs that emulate and build are here; builds nothing."""
        missing = [program for program in DEBIAN_PACKAGES if not shutil.which(program)]
        if missing:
            packages = " ".join(DEBIAN_PACKAGES[program] for program in missing)
            return Availability(False, f"{', '.join(missing)} not found", f"apt-get install {packages}")
        return Availability(True)

    def open(self, artifact: Artifact, *, threads: int = 1) -> Arm64Session:
        """Open the artifact in the emulator; the first opening ever builds its root (`arm64_root`)."""
        if self._channel is None:
            self._channel = self._emulator()
            weakref.finalize(self, self._channel.close)
        return Arm64Session(self, self._channel, artifact, threads)

    def isa(self) -> Collection[str]:
        """Return the CPU flags of the emulated processor."""
        return self._processor.features.split()

    def set_up(self, *, force: bool = False, progress: Progress = silent) -> list[str]:  # noqa: ARG002 (built once)
        """Build the root folder that all emulated processors share."""
        return [f"root of the emulated processors: {arm64_root(progress)}"]

    def count(
        self,
        artifacts: Sequence[Artifact],
        *,
        runs: int = 5,
        batch: int = 1,
        together: bool = False,
        progress: Progress = silent,
    ) -> list[Instructions]:
        """See `Target.count`. Starting an emulator takes seconds; earlier runs change where memory is allocated."""
        if not together:
            return super().count(artifacts, runs=runs, batch=batch, progress=progress)
        return self.count_in_one(artifacts, runs=runs, batch=batch, progress=progress)

    def count_in_one(
        self, artifacts: Sequence[Artifact], *, runs: int, batch: int, progress: Progress = silent
    ) -> list[Instructions]:
        """Count artifacts one after another in a new emulator."""
        with tempfile.TemporaryDirectory(prefix="glyphpress-") as folder:
            log, counts = Path(folder) / "marks", []
            with closing(self._emulator("-plugin", f"{_plugin()},out={log}")) as channel:
                for done, artifact in enumerate(artifacts, 1):
                    session = Arm64Session(self, channel, artifact, 1)
                    samples = session.count_here(log, runs, batch)
                    counts.append(Instructions(artifact.sha256, session.facts, samples, batch))
                    progress(f"counting on {self.name}", done, len(artifacts))
        return counts

    def _emulator(self, *options: str) -> Channel:
        state = self.probe()
        if not state.ok:
            raise TargetUnavailable(f"{self.name}: {state.reason}; {state.fix}")
        prefix = _prefix(arm64_root(self.progress), self._processor)
        guest = {"PYTHONPATH": str(prefix / SITE), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
        variables = [option for key, value in guest.items() for option in ("-E", f"{key}={value}")]
        python = str(prefix / f"usr/bin/python{PYTHON}")
        # QEMU 7.2's default processor has features with which LiteRT's int8 kernels give wrong answers.
        qemu = [QEMU, "-cpu", self._processor.name, "-L", str(prefix)]
        start = [python, "-P", str(Path(__file__).with_name("start.py"))]
        return Channel([*qemu, *variables, *options, *start], self.name, environment=dict(os.environ))


class Arm64Session(RemoteSession):
    """An artifact in the emulator."""

    def __init__(self, target: Arm64Target, channel: Channel, artifact: Artifact, threads: int) -> None:
        """Open the artifact in the emulator."""
        self._target = target
        facts = {"device": f"QEMU {target.name.partition(':')[2]}", "device_type": "emulated"}
        super().__init__(
            channel,
            artifact,
            path=str(artifact.path.resolve()),
            runtime=DEFAULTS[artifact.format],
            threads=threads,
            facts=facts,
        )

    def count(self, *, runs: int = 5, batch: int = 1) -> Instructions:
        """Count in a new emulator on one thread, without the instructions of the marks.

        Repeatable exactly in LiteRT, and to 1 % in ONNX Runtime, where it depends on memory addresses.
        """
        (counted,) = self._target.count_in_one([self.artifact], runs=runs, batch=batch)
        return counted

    def count_here(self, log: Path, runs: int, batch: int) -> tuple[int, ...]:
        """Return the instructions of each inference in this emulator, whose plugin appends its totals to `log`."""
        steps = self._request("count", runs=runs, batch=batch).value("marks", list)
        totals = [int(line.split()[1]) for line in log.read_text().splitlines()]
        differences = [after - before for before, after in pairwise(totals[-len(steps) - 1 :])]
        if len(differences) != len(steps):
            raise RunFailed(f"{self.facts.target}: the plugin counted {len(differences)} of {len(steps)} marks")
        empty, counted = (
            [difference for difference, step in zip(differences, steps, strict=True) if step == kind]
            for kind in ("empty", "run")
        )
        return tuple(difference - int(median(empty)) for difference in counted)


def _prefix(root: Path, processor: Processor) -> Path:
    """Return a root with the /proc/cpuinfo of a processor; links, so that all processors share one root."""

    def build(part: Path) -> None:
        for entry in root.iterdir():
            if entry.name != "proc":
                (part / entry.name).symlink_to(entry)
        (part / "proc").mkdir()
        (part / "proc/cpuinfo").write_text(processor.cpuinfo())

    return cached(f"arm64/{processor.name}", str(root) + processor.cpuinfo(), build)


def _plugin() -> Path:
    """Return the plugin's library, compiled on first use."""

    def build(part: Path) -> None:
        run_program([COMPILER, "-shared", "-fPIC", "-O2", "-o", part / "libcount.so", SOURCE], COMPILER)

    return cached("arm64/count", SOURCE.read_text(encoding="utf-8"), build) / "libcount.so"

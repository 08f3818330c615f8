"""The root folder: Debian's arm64 Python, and the wheels of the runtimes in the versions that this host has."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from targets.arm64.cache import cached, ran

SUITE = "bookworm"
PYTHON = "3.11"
"""Of that suite."""
PACKAGES = (
    *("base-files", "bash", "dash", "coreutils", "procps", "python3-minimal", "libpython3-stdlib"),
    *("libgomp1", "libstdc++6", "zlib1g"),
)
WHEELS = ("numpy", "onnxruntime", "ai-edge-litert", "flatbuffers", "protobuf")
PLATFORMS = tuple(f"manylinux{tag}_aarch64" for tag in ("_2_28", "_2_27", "_2_17", "2014"))
SITE = "opt/site"
"""Where the wheels lie in the root."""

Progress = Callable[[str, int, int], None]
"""What the builder calls: a label, how many steps are done, of how many."""


def _silent(_label: str, _done: int, _total: int) -> None:
    """Say nothing."""


def wheels() -> list[str]:
    """Return `NAME==VERSION` of every wheel that goes into the root: what is installed on this host."""
    found = []
    for name in WHEELS:
        try:
            found.append(f"{name}=={version(name)}")
        except PackageNotFoundError:
            continue  # a host without LiteRT emulates ONNX Runtime alone
    return found


def arm64_root(progress: Progress = _silent) -> Path:
    """Return the root folder, building it in the user's cache where it is not there: 10 s and 280 MB.

    Needs mmdebstrap and pip, and the network once; no privileges. Raises TargetUnavailable.
    """
    pinned = wheels()

    def build(part: Path) -> None:
        progress("arm64 root", 0, 2)
        include = f"--include={','.join(PACKAGES)}"
        ran(["mmdebstrap", "--architectures=arm64", "--variant=extract", include, SUITE, part], "mmdebstrap")
        progress("arm64 root", 1, 2)
        chosen = [word for platform in PLATFORMS for word in ("--platform", platform)]
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        where = ["--only-binary=:all:", "--no-compile", "--python-version", PYTHON, "--target", str(part / SITE)]
        ran([*pip, *where, *chosen, *pinned], "pip")
        progress("arm64 root", 2, 2)

    return cached("root", " ".join((SUITE, *PACKAGES, *pinned)), build)

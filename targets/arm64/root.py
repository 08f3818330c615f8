"""The root folder: Debian's arm64 Python, and the wheels of the runtimes in the versions that this host has."""

from __future__ import annotations

from pathlib import Path

from targets.host.cache import cached, ran
from targets.host.wheels import installed, unpack
from targets.target import Progress, silent

SUITE = "bookworm"
PYTHON = "3.11"
"""Of that suite."""
PACKAGES = (
    *("base-files", "bash", "dash", "coreutils", "procps", "python3-minimal", "libpython3-stdlib"),
    *("libgomp1", "libstdc++6", "zlib1g"),
)
SITE = "opt/site"
"""Where the wheels lie in the root."""

NEEDED_BYTES = 350_000_000
"""Of disk, with what pip and mmdebstrap keep while they work."""


def arm64_root(progress: Progress = silent) -> Path:
    """Return the root folder, building it in the user's cache where it is not there: 10 s and 280 MB.

    Needs mmdebstrap and pip, and the network once; no privileges. Raises TargetUnavailable.
    """

    def build(part: Path) -> None:
        progress("arm64 root", 0, 2)
        include = f"--include={','.join(PACKAGES)}"
        ran(["mmdebstrap", "--architectures=arm64", "--variant=extract", include, SUITE, part], "mmdebstrap")
        progress("arm64 root", 1, 2)
        unpack(part / SITE, PYTHON, "aarch64")
        progress("arm64 root", 2, 2)

    return cached("arm64/root", " ".join((SUITE, *PACKAGES, *installed())), build, need=NEEDED_BYTES)

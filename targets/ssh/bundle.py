"""What a board is given: the modules of the agent, and the runtimes' wheels for its Python and architecture."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from targets.artifact import file_sha256
from targets.errors import TargetUnavailable
from targets.host.cache import cached
from targets.host.wheels import ARCHITECTURES, installed, unpack
from targets.ssh.connection import Address, board_facts, run_on_board

HOME = Path(__file__).parents[2]
MODULES = (
    "__init__",
    "agent/__init__",
    "agent/__main__",
    "agent/remote",
    "agent/serve",
    "agent/wire",
    "artifact",
    "catalog",
    "errors",
    "host/__init__",
    "host/clock",
    "host/fresh_process",
    "host/local_target",
    "host/machine",
    "host/result_files",
    "host/runtime_session",
    "host/stderr",
    "host/text",
    "litert/__init__",
    "litert/cpu",
    "onnxruntime/__init__",
    "onnxruntime/cpu",
    "preprocess",
    "session",
    "target",
)
"""Of `targets`: all that the agent imports."""


@dataclass(frozen=True)
class BoardFolder:
    """A folder that a board gets whole. made_of: what is in it; build: writes that as the archive that it is given.

    need: about how many bytes that takes here.
    """

    kind: str
    made_of: str
    build: Callable[[Path], None]
    need: int = 0

    @property
    def name(self) -> str:
        """Its name there, which says what is in it."""
        return f"{self.kind}-{hashlib.sha256(self.made_of.encode()).hexdigest()[:16]}"

    @cached_property
    def archive(self) -> Path:
        """The archive that it comes as, made when it is asked for; raises TargetUnavailable where it cannot be."""
        name = "layer.tar.gz"
        return cached(f"ssh/{self.kind}", self.made_of, lambda part: self.build(part / name), need=self.need) / name

    @property
    def sha256(self) -> str:
        """The digest of the archive."""
        return file_sha256(self.archive)


def agent_layer() -> BoardFolder:
    """Return the agent's modules."""
    found = [HOME / "targets" / f"{module}.py" for module in MODULES]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in found)).hexdigest()

    def build(archive: Path) -> None:
        _archived(archive, {str(path.relative_to(HOME)): path for path in found})

    return BoardFolder("agent", digest, build)


def wheels_layer(python: str, architecture: str) -> BoardFolder:
    """Return the runtimes for a Python (`3.11`) and an architecture; fetched when its archive is first asked for.

    Raises TargetUnavailable where there are none.
    """
    if architecture not in ARCHITECTURES:
        raise TargetUnavailable(
            f"ONNX Runtime and LiteRT have no wheels for {architecture} (there is tflite-runtime 2.14 for Python 3.11, "
            "which the agent does not speak to); install a 64-bit system there"
        )
    made_of = " ".join((python, architecture, *installed()))

    def build(archive: Path) -> None:
        with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
            unpack(Path(folder), python, architecture)
            files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
            _archived(archive, {str(path.relative_to(folder)): path for path in files})

    return BoardFolder("wheels", made_of, build, need=300_000_000)


def _archived(archive: Path, files: dict[str, Path]) -> None:
    """Write a tar archive that depends on names and contents alone, so that the same files have the same digest."""
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
    """What a board has after it was set up. folders: the layers there; pushed: those that were not, and their bytes."""

    address: str
    python: str
    architecture: str
    home: str
    folders: tuple[str, ...]
    pushed: dict[str, int]

    def lines(self) -> list[str]:
        """Return what was pushed, a line each."""
        return [f"{self.address}: {name}, {size / 1e3:,.0f} KB" for name, size in self.pushed.items()]


def set_up(word: str, *, force: bool = False, progress: Callable[[str, int, int], None]) -> SetUp:
    """Push the agent and its wheels to a board; `force` pushes them over what is there.

    Each layer is verified by its digest there, and appears whole or not at all. Raises UnknownTarget,
    TargetUnavailable, or RunFailed with what ssh or the board said.
    """
    address = Address.parse(word.removeprefix("ssh:"))
    known = board_facts(address)
    layers = layers_for(known)
    missing = [layer for layer in layers if force or layer.name not in known["there"]]
    for done, layer in enumerate(missing):
        progress(f"pushing to {address}", done, len(missing))
        with layer.archive.open("rb") as stream:
            run_on_board(address, "take", layer.name, layer.sha256, source=stream)
    if missing:
        progress(f"pushing to {address}", len(missing), len(missing))
    pushed = {layer.name: layer.archive.stat().st_size for layer in missing}
    names = tuple(layer.name for layer in layers)
    return SetUp(str(address), known["python"], known["architecture"], known["home"], names, pushed)


def layers_for(known: dict[str, Any]) -> tuple[BoardFolder, BoardFolder]:
    """Return the layers that a board of these facts needs."""
    python = ".".join(known["python"].split(".")[:2])
    return agent_layer(), wheels_layer(python, known["architecture"])


def ready(address: Address) -> tuple[str, list[str]]:
    """Return the home and the layers of a board that is set up; raises TargetUnavailable where it is not."""
    known = board_facts(address)
    layers = layers_for(known)
    if not {layer.name for layer in layers} <= set(known["there"]):
        raise TargetUnavailable(f"{address}: not set up for this version; run `glyphpress targets setup {address}`")
    return known["home"], [layer.name for layer in layers]

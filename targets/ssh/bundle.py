"""Sets a board up: pushes the agent's modules, and the runtimes' wheels for its Python and architecture.

Only layers that are not there yet are pushed; another setup costs one round trip.
"""

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

ROOT = Path(__file__).parents[2]
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
"""All modules of `targets` that the agent imports."""


@dataclass(frozen=True)
class BoardFolder:
    """A folder that a board gets as a whole.

    made_of: text that identifies its content. build: writes the content to an archive of the given path. need: about
    how many bytes that takes on this machine.
    """

    kind: str
    made_of: str
    build: Callable[[Path], None]
    need: int = 0

    @property
    def name(self) -> str:
        """Its name on the board, which depends on its content."""
        return f"{self.kind}-{hashlib.sha256(self.made_of.encode()).hexdigest()[:16]}"

    @cached_property
    def archive(self) -> Path:
        """The archive to push, built on first use; raises TargetUnavailable where it cannot be built."""
        name = "layer.tar.gz"
        return cached(f"ssh/{self.kind}", self.made_of, lambda part: self.build(part / name), need=self.need) / name

    @property
    def sha256(self) -> str:
        """The digest of the archive."""
        return file_sha256(self.archive)


def agent_layer() -> BoardFolder:
    """Return the layer with the agent's modules."""
    paths = [ROOT / "targets" / f"{module}.py" for module in MODULES]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()

    def build(archive: Path) -> None:
        _archived(archive, {str(path.relative_to(ROOT)): path for path in paths})

    return BoardFolder("agent", digest, build)


def wheels_layer(python: str, architecture: str) -> BoardFolder:
    """Return the layer with the runtimes for a Python (`3.11`) and an architecture; fetched when its archive is built.

    Raises TargetUnavailable for an architecture without wheels.
    """
    if architecture not in ARCHITECTURES:
        raise TargetUnavailable(
            f"ONNX Runtime and LiteRT have no wheels for {architecture} (there is tflite-runtime 2.14 for Python 3.11, "
            "which the agent cannot use); install a 64-bit system there"
        )
    made_of = " ".join((python, architecture, *installed()))

    def build(archive: Path) -> None:
        with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
            unpack(Path(folder), python, architecture)
            files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
            _archived(archive, {str(path.relative_to(folder)): path for path in files})

    return BoardFolder("wheels", made_of, build, need=300_000_000)


def _archived(archive: Path, files: dict[str, Path]) -> None:
    """Write a tar archive that depends on names and contents alone, so that the same files give the same digest."""
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
    """What a board has after its setup. folders: its layers. pushed: those that were missing, and their bytes."""

    address: str
    python: str
    architecture: str
    home: str
    folders: tuple[str, ...]
    pushed: dict[str, int]

    def lines(self) -> list[str]:
        """Return a line for each layer that was pushed."""
        return [f"{self.address}: {name}, {size / 1e3:,.0f} KB" for name, size in self.pushed.items()]


def set_up(word: str, *, force: bool = False, progress: Callable[[str, int, int], None]) -> SetUp:
    """Push the agent and its wheels to a board where they are missing; `force` replaces them.

    The board verifies each layer by its digest, and keeps it whole or not at all. Raises UnknownTarget,
    TargetUnavailable, or RunFailed with the message of ssh or the board.
    """
    address = Address.parse(word.removeprefix("ssh:"))
    facts = board_facts(address)
    layers = layers_for(facts)
    missing = [layer for layer in layers if force or layer.name not in facts["there"]]
    for done, layer in enumerate(missing):
        progress(f"pushing to {address}", done, len(missing))
        with layer.archive.open("rb") as stream:
            run_on_board(address, "take", layer.name, layer.sha256, source=stream)
    if missing:
        progress(f"pushing to {address}", len(missing), len(missing))
    pushed = {layer.name: layer.archive.stat().st_size for layer in missing}
    names = tuple(layer.name for layer in layers)
    return SetUp(str(address), facts["python"], facts["architecture"], facts["home"], names, pushed)


def layers_for(facts: dict[str, Any]) -> tuple[BoardFolder, BoardFolder]:
    """Return the layers that a board of these facts needs."""
    python = ".".join(facts["python"].split(".")[:2])
    return agent_layer(), wheels_layer(python, facts["architecture"])


def ready(address: Address) -> tuple[str, list[str]]:
    """Return home and layers of a board that is set up; raises TargetUnavailable where it is not."""
    facts = board_facts(address)
    layers = layers_for(facts)
    if not {layer.name for layer in layers} <= set(facts["there"]):
        raise TargetUnavailable(f"{address}: not set up for this version; run `glyphpress targets setup {address}`")
    return facts["home"], [layer.name for layer in layers]

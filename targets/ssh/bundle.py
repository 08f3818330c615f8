"""What a board is given: the modules of the agent, and the runtimes' wheels for its Python and architecture."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from targets.arm64.cache import cached
from targets.errors import TargetUnavailable
from targets.wheels import ARCHITECTURES, installed, unpack

HOME = Path(__file__).parents[1]
MODULES = (
    *("__init__", "artifact", "catalog", "cold", "errors", "litert", "machine", "ort", "port", "preprocess", "quiet"),
    *("session", "target", "timing", "wire", "agent/__init__", "agent/__main__", "agent/marks", "agent/serve"),
)
"""Of `targets`: all that the agent imports."""


@dataclass(frozen=True)
class Layer:
    """A folder that a board gets whole: its name there, which says what is in it, and the archive that it comes as."""

    name: str
    archive: Path
    sha256: str


def agent_layer() -> Layer:
    """Return the agent's modules."""
    found = [HOME / f"{module}.py" for module in MODULES]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in found)).hexdigest()

    def build(part: Path) -> None:
        _archived(part / "layer.tar.gz", {str(path.relative_to(HOME.parent)): path for path in found})

    return _layer(f"agent-{digest[:16]}", cached("agent", digest, build))


def wheels_layer(python: str, architecture: str) -> Layer:
    """Return the runtimes for a Python (`3.11`) and an architecture; the first time they are fetched.

    Raises TargetUnavailable where there are none.
    """
    if architecture not in ARCHITECTURES:
        raise TargetUnavailable(
            f"ONNX Runtime and LiteRT have no wheels for {architecture}; install a 64-bit system there"
        )
    made_of = " ".join((python, architecture, *installed()))

    def build(part: Path) -> None:
        with tempfile.TemporaryDirectory(dir=part.parent) as folder:
            unpack(Path(folder), python, architecture)
            files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
            _archived(part / "layer.tar.gz", {str(path.relative_to(folder)): path for path in files})

    return _layer(f"wheels-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}", cached("wheels", made_of, build))


def _layer(name: str, folder: Path) -> Layer:
    archive = folder / "layer.tar.gz"
    with archive.open("rb") as stream:
        return Layer(name, archive, hashlib.file_digest(stream, "sha256").hexdigest())


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

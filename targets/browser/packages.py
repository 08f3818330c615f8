"""The runtimes of browsers, from the package registry of npm: pinned by digest, kept in the user's cache."""

from __future__ import annotations

import base64
import hashlib
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

from targets.artifact import Format
from targets.errors import TargetUnavailable
from targets.host.cache import cache_folder, cached, ran


@dataclass(frozen=True)
class Package:
    """A package of npm. integrity: SHA-512 of its archive in base64, as `npm` prints it. files: what pages need."""

    name: str
    version: str
    integrity: str
    files: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Return where the cache keeps it, there or not."""
        return cache_folder(self._kind, self._made_of)

    @property
    def path(self) -> str:
        """Return the name as one part of a path: the scope loses its mark, and no slash is left."""
        return self.name.removeprefix("@").replace("/", "-")

    def fetch(self) -> Path:
        """Return its folder, filled from the registry the first time; raises TargetUnavailable."""
        return cached(self._kind, self._made_of, self._unpack, need=150_000_000)

    @property
    def _kind(self) -> str:
        return f"browser/{self.path}"

    @property
    def _made_of(self) -> str:
        return " ".join((self.integrity, *self.files))

    def _unpack(self, folder: Path) -> None:
        wanted = f"{self.name}@{self.version}"
        ran(["npm", "pack", wanted, "--pack-destination", folder], f"fetching {wanted} with npm")
        (archive,) = folder.glob("*.tgz")
        found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if found != self.integrity:
            raise TargetUnavailable(f"{wanted} has another digest than its release ({found})", "ask another registry")
        with tarfile.open(archive) as content:
            for name in self.files:
                member = content.extractfile(f"package/{name}")
                assert member is not None, name  # the digest says what is in it
                (folder / name).parent.mkdir(exist_ok=True)
                with (folder / name).open("wb") as stream:
                    shutil.copyfileobj(member, stream)
        archive.unlink()


ONNXRUNTIME_WEB = Package(
    "onnxruntime-web",
    "1.30.0",
    "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
    (
        "dist/ort.wasm.bundle.min.mjs",
        "dist/ort-wasm-simd-threaded.mjs",
        "dist/ort-wasm-simd-threaded.wasm",
        "dist/ort.webgpu.bundle.min.mjs",
        "dist/ort-wasm-simd-threaded.asyncify.mjs",
        "dist/ort-wasm-simd-threaded.asyncify.wasm",
    ),
)
LITERT_JS = Package(
    "@litertjs/core",
    "2.5.3",
    "PlGmbMOq9WitX7FO0jhbdJw9GthatsyuCQXjTt/wJZo0FLaw48q4tz8IwqgqCIkviYGr9OFDL1kCnN4nzWoyJQ==",
    (
        "dist/index.js",
        "wasm/litert_wasm_internal.js",
        "wasm/litert_wasm_internal.wasm",
        "wasm/litert_wasm_threaded_internal.js",
        "wasm/litert_wasm_threaded_internal.wasm",
    ),
)
WASM_UTILS = Package(
    "@litertjs/wasm-utils",
    "2.5.3",
    "4fJiw6tBQnIs+0jH/OQ16nYOiSl8/+zZnn5h2ul8aTKHi05sVqZW580Tmk78pC2kT39A9OYBVdFawteZ/sI1kQ==",
    ("dist/index.js",),
)
NEEDED: dict[Format, tuple[Package, ...]] = {
    "onnx": (ONNXRUNTIME_WEB,),
    "ort": (ONNXRUNTIME_WEB,),
    "tflite": (LITERT_JS, WASM_UTILS),
}
"""Format -> what runs it, the runtime itself first."""

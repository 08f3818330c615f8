"""The runtimes for browsers: npm packages, pinned by digest and kept in the user's cache."""

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
        """Return its folder in the cache, present or not."""
        return cache_folder(self._kind, self._made_of)

    @property
    def path(self) -> str:
        """Return the name as one part of a path, without `@` and slashes."""
        return self.name.removeprefix("@").replace("/", "-")

    def fetch(self) -> Path:
        """Return its folder, after fetching it from the registry on first use; raises TargetUnavailable."""
        return cached(self._kind, self._made_of, self._unpack, need=150_000_000)

    @property
    def _kind(self) -> str:
        return f"browser/{self.path}"

    @property
    def _made_of(self) -> str:
        return " ".join((self.integrity, *self.files))

    def _unpack(self, folder: Path) -> None:
        release = f"{self.name}@{self.version}"
        ran(["npm", "pack", release, "--pack-destination", folder], f"fetching {release} with npm")
        (archive,) = folder.glob("*.tgz")
        digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if digest != self.integrity:
            raise TargetUnavailable(
                f"{release} has the wrong digest ({digest}), so it was changed", "use another registry"
            )
        with tarfile.open(archive) as content:
            for name in self.files:
                member = content.extractfile(f"package/{name}")
                assert member is not None, name  # its digest guarantees its content
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
PACKAGES: dict[Format, tuple[Package, ...]] = {
    "onnx": (ONNXRUNTIME_WEB,),
    "ort": (ONNXRUNTIME_WEB,),
    "tflite": (LITERT_JS, WASM_UTILS),
}
"""Format -> packages that run it, the runtime first."""

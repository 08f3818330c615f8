"""Kiosk: a page on this machine where a person writes, and the files of a press read it in the browser."""

from __future__ import annotations

import base64
import errno
import hashlib
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any, ClassVar

import calibration.glyph
from targets.artifact import Artifact
from targets.browser import PAGE, page_options
from targets.browser.chromium import MISSING_FILE, PACKAGES, Files, require_packages
from targets.errors import ArtifactError, RunFailed
from targets.host.text import json_text
from targets.metadata import load_artifact
from toolchain.core.errors import StageError
from toolchain.core.files import MARK
from toolchain.report.report import Report

OWN_PAGE = Path(__file__).with_name("kiosk_page")
_IMPORT_MAP = re.compile(r'<script type="importmap">(.*?)</script>', re.DOTALL)


@dataclass(frozen=True)
class KioskModels:
    """The model files of a run folder. first: the names of the two files that the page shows at first."""

    folder: Path
    names: tuple[str, ...]
    first: tuple[str, str]

    def facts(self) -> list[dict[str, Any]]:
        """Return what the page needs of every file, read anew; `problem` says why it cannot run a file."""
        return [self._facts(name) for name in self.names]

    def _facts(self, name: str) -> dict[str, Any]:
        try:
            artifact = load_artifact(self.folder / name)
            return {"name": name, **_facts(artifact)}
        except (ArtifactError, RunFailed, OSError) as error:
            return {"name": name, "problem": str(error)}


def _facts(artifact: Artifact) -> dict[str, Any]:
    source, sink, options = page_options(artifact)
    tensors = {
        key: {"dtype": codec.spec.dtype, "scale": codec.scale, "zeroPoint": codec.zero_point}
        for key, codec in (("source", source), ("sink", sink))
    }
    return {
        "recipe": artifact.recipe,
        "bytes": artifact.size,
        "classes": artifact.classes,
        "preprocess": artifact.preprocess.to_dict(),
        "shape": [max(axis, 1) for axis in source.spec.shape],
        "options": options,
        **tensors,
    }


def kiosk_models(folder: Path) -> KioskModels:
    """Return the model files of a run folder; raises StageError where there are none.

    The baseline and the winner of the press are shown first; without a report, a float file and another one.
    """
    if not folder.is_dir():
        raise StageError(f"{folder}: no such folder; give the one that `glyphpress press --out` wrote")
    names = tuple(sorted(path.name for path in folder.iterdir() if path.suffix.removeprefix(".") in PACKAGES))
    if not names:
        raise StageError(
            f"{folder} holds no .onnx or .tflite file; give the folder that `glyphpress press --out` wrote"
        )
    rows = [row for row in Report.load(folder).rows if row.name in names] if (folder / MARK).is_file() else []
    floats = [row.name for row in rows if row.baseline] + [name for name in names if ".float." in name] + [names[0]]
    winners = [row.name for row in rows if row.winner and row.name != floats[0]]
    others = winners + [name for name in names if ".float." not in name and name != floats[0]] + [names[-1]]
    return KioskModels(folder, names, (floats[0], others[0]))


def served_files(models: KioskModels) -> dict[str, Path]:
    """Return path -> file of everything that the page may ask for; fetches the runtimes on first use."""
    kinds = sorted({Path(name).suffix.removeprefix(".") for name in models.names})
    formats = [kind for kind in PACKAGES if kind in kinds]
    require_packages(formats)
    glyph_module = Path(calibration.glyph.__file__).with_suffix(".mjs")
    files = {"/": OWN_PAGE / "index.html", "/calibration/glyph.mjs": glyph_module}
    files |= {f"/kiosk/{path.name}": path for path in OWN_PAGE.iterdir()}
    files |= {f"/page/{path.name}": path for path in PAGE.glob("*.mjs")}
    for package in {package for kind in formats for package in PACKAGES[kind]}:
        folder = package.fetch()
        files |= {f"/{package.path}/{name}": folder / name for name in package.files}
    return files


def _policy() -> str:
    """Return the Content-Security-Policy: this server alone; the page's import map is allowed by its digest."""
    found = _IMPORT_MAP.search((OWN_PAGE / "index.html").read_text(encoding="utf-8"))
    assert found, "the page has an import map"
    digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'self' 'wasm-unsafe-eval' 'sha256-{digest}'; style-src 'self'; "
        "img-src 'self'; connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


class _Kiosk(Files):
    models: ClassVar[KioskModels]
    files: ClassVar[dict[str, Path]]
    policy: ClassVar[str]
    names: ClassVar[frozenset[str]]

    def translate_path(self, path: str) -> str:
        return str(self.files.get(path.partition("?")[0], MISSING_FILE))

    def do_GET(self) -> None:  # noqa: N802 (the name is of the base class)
        if not self._known_host():
            self.send_error(403, "this page answers to its own address alone")
        elif self.path == "/models.json":
            answer = {"models": self.models.facts(), "first": self.models.first}
            self._send(200, "application/json", json_text(answer).encode())
        elif self.path.startswith("/model/"):
            self._send_model(self.path.removeprefix("/model/"))
        else:
            super().do_GET()

    def do_HEAD(self) -> None:  # noqa: N802
        self.send_error(405)

    def _send_model(self, number: str) -> None:
        """Send the bytes of a file by its number, unless they are no longer those that its sidecar describes."""
        if not number.isdecimal() or len(number) > 4 or int(number) >= len(self.models.names):
            self.send_error(404)
            return
        path = self.models.folder / self.models.names[int(number)]
        try:
            artifact, content = load_artifact(path), path.read_bytes()
        except (ArtifactError, OSError) as error:
            self._send(409, "text/plain; charset=utf-8", str(error).encode())
            return
        if hashlib.sha256(content).hexdigest() != artifact.sha256:
            self._send(409, "text/plain; charset=utf-8", f"{path.name} was changed since it was pressed".encode())
        else:
            self._send(200, "application/octet-stream", content)

    def _send(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _known_host(self) -> bool:
        """Return whether the page was asked for by an address, or by a name of this machine.

        A stranger's name that leads here (DNS rebinding) would let the stranger's page read this one.
        """
        name = self.headers.get("Host", "").rpartition(":")[0].strip("[]").lower()
        if name in self.names:
            return True
        try:
            ip_address(name)
        except ValueError:
            return False
        return True

    def end_headers(self) -> None:
        self.send_header("Content-Security-Policy", self.policy)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Cache-Control", "no-store")
        super().end_headers()


@contextmanager
def kiosk(folder: Path, *, host: str = "127.0.0.1", port: int = 8000) -> Iterator[ThreadingHTTPServer]:
    """Yield the server of a run folder's page, ready to serve, and close it in the end. port: 0 takes a free one.

    Raises StageError where there are no model files or the port is in use, and TargetUnavailable without npm.
    """
    models = kiosk_models(folder)
    names = frozenset({"localhost", host.lower()} | ({socket.gethostname().lower()} if host != "127.0.0.1" else set()))
    settings = {"models": models, "files": served_files(models), "policy": _policy(), "names": names}
    try:
        server = ThreadingHTTPServer((host, port), type("Kiosk", (_Kiosk,), settings))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StageError(f"port {port} is in use; give another one with --port, or 0 for any free one") from error
        raise StageError(f"{host}:{port} cannot be served ({error.strerror or error}); check --host") from error
    with server:
        yield server

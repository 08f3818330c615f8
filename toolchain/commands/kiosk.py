"""Kiosk: a page on this machine where a person writes, and the files of a press read it in the browser."""

from __future__ import annotations

import base64
import errno
import hashlib
import hmac
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import calibration.glyph
from targets.artifact import Artifact
from targets.browser import PAGE, page_options
from targets.browser.chromium import (
    LITERT_JS,
    MISSING_FILE,
    ONNXRUNTIME_WEB,
    PACKAGES,
    Files,
    require_packages,
)
from targets.errors import ArtifactError, RunFailed
from targets.host.text import json_text
from targets.metadata import load_artifact
from toolchain.commands.kiosk_save import GLYPH_BYTES, GlyphFolder, open_glyph_folder
from toolchain.core.errors import GlyphpressError, StageError, UsageProblem
from toolchain.core.files import MARK
from toolchain.report.report import Report

OWN_PAGE = Path(__file__).with_name("kiosk_page")
RUNTIME_TITLES = {ONNXRUNTIME_WEB: "ONNX Runtime Web", LITERT_JS: "LiteRT.js"}
TOKEN = "X-Kiosk-Token"
"""Header of every request that writes; only this page can read the token, and no foreign page can send the header."""
_IMPORT_MAP = re.compile(r'<script type="importmap">(.*?)</script>', re.DOTALL)


@dataclass(frozen=True)
class KioskModels:
    """The model files of a run folder. first: the names of the two files that the page shows at first.

    notes: which file of the press is missing, and what is shown in its place, one line each.
    """

    folder: Path
    names: tuple[str, ...]
    first: tuple[str, str]
    notes: tuple[str, ...] = ()

    def facts(self) -> list[dict[str, Any]]:
        """Return what the page needs of every file, read anew; `problem` says why it cannot run a file."""
        return [self._facts(name) for name in self.names]

    def classes(self) -> tuple[str, ...]:
        """Return the classes of the files that are shown first; raises StageError where neither can be read."""
        for name in self.first:
            with suppress(ArtifactError):
                return load_artifact(self.folder / name).classes
        raise StageError(f"{self.folder}: {' and '.join(self.first)} cannot be read; press them again")

    def _facts(self, name: str) -> dict[str, Any]:
        try:
            artifact = load_artifact(self.folder / name)
            return {"name": name, **_facts(artifact)}
        except (ArtifactError, RunFailed, OSError) as error:
            return {"name": name, "problem": str(error)}


def _facts(artifact: Artifact) -> dict[str, Any]:
    source, sink, options = page_options(artifact)
    runtime = PACKAGES[artifact.format][0]
    tensors = {
        key: {"dtype": codec.spec.dtype, "scale": codec.scale, "zeroPoint": codec.zero_point}
        for key, codec in (("source", source), ("sink", sink))
    }
    return {
        "recipe": artifact.recipe,
        "runtime": f"{RUNTIME_TITLES[runtime]} {runtime.version}",
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
    rows = Report.load(folder).rows if (folder / MARK).is_file() else ()
    floats = [row.name for row in rows if row.baseline] + [name for name in names if ".float." in name] + [names[0]]
    first = next(name for name in floats if name in names)
    winners = [row.name for row in rows if row.winner and row.name != first]
    others = winners + [name for name in names if ".float." not in name and name != first] + [names[-1]]
    shown = (first, next(name for name in others if name in names))
    asked = zip((floats[0], others[0]), shown, ("float baseline", "file to ship"), strict=True)
    notes = tuple(
        f"{wanted}, the {role} of this press, is not in its folder; {name} is shown in its place"
        for wanted, name, role in asked
        if wanted != name
    )
    return KioskModels(folder, names, shown, notes)


def served_files(models: KioskModels) -> dict[str, Path]:
    """Return path -> file of everything that the page may ask for; fetches the runtimes on first use."""
    kinds = sorted({Path(name).suffix.removeprefix(".") for name in models.names})
    formats = [kind for kind in PACKAGES if kind in kinds]
    require_packages(formats)
    files = {"/": OWN_PAGE / "index.html"}
    files |= {f"/calibration/{path.name}": path for path in Path(calibration.glyph.__file__).parent.glob("*.mjs")}
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
    glyphs: ClassVar[GlyphFolder | None] = None
    token: ClassVar[str]
    timeout = 30

    def translate_path(self, path: str) -> str:
        return str(self.files.get(path.partition("?")[0], MISSING_FILE))

    def do_GET(self) -> None:  # noqa: N802 (the name is of the base class)
        if not self._known_host():
            self.send_error(403, "this page answers to its own address alone")
        elif self.path == "/models.json":
            self._send_json(
                200,
                {
                    "models": self.models.facts(),
                    "first": self.models.first,
                    "notes": self.models.notes,
                    "save": self._save_facts(),
                },
            )
        elif self.path.startswith("/model/"):
            self._send_model(self.path.removeprefix("/model/"))
        else:
            super().do_GET()

    def do_POST(self) -> None:  # noqa: N802
        """Keep a glyph, the body of `/glyph?class=NAME`, and answer with its file; nothing else can be posted."""
        # Every refusal leaves a body that was not read.
        self.close_connection = True
        if refusal := self._refusal():
            self.send_error(*refusal)
            return
        assert self.glyphs, "checked above"
        try:
            content = self.rfile.read(GLYPH_BYTES)
            name = parse_qs(urlsplit(self.path).query).get("class", [""])[0]
            kept = self.glyphs.keep(name, content)
        except GlyphpressError as error:
            self._send_json(409, {"problem": str(error)})
        except OSError as error:
            self._send_json(409, {"problem": f"{self.glyphs.folder} cannot be written: {error.strerror or error}"})
        else:
            answer = {"file": kept.file, "new": kept.new, "instead": kept.instead, "count": self.glyphs.count()}
            self._send_json(200, answer)

    def _refusal(self) -> tuple[int, str] | None:
        """Return status and reason why a POST is refused before its body is read; None if it is not."""
        headers = self.headers
        if not self._known_host() or headers.get("Origin") != f"http://{headers.get('Host')}":
            return 403, "only this server's own page can keep glyphs"
        if not hmac.compare_digest(headers.get(TOKEN, "").encode(), self.token.encode()):
            return 403, "only this server's own page can keep glyphs"
        if urlsplit(self.path).path != "/glyph" or self.glyphs is None:
            return 404, "glyphs are kept at /glyph, and only with --save"
        if headers.get("Content-Type") != "application/octet-stream":
            return 415, "a glyph is application/octet-stream"
        if headers.get("Transfer-Encoding") or headers.get("Content-Length") != str(GLYPH_BYTES):
            return 413, f"a glyph has {GLYPH_BYTES} bytes"
        return None

    def _save_facts(self) -> dict[str, Any] | None:
        if self.glyphs is None:
            return None
        return {"folder": str(self.glyphs.folder), "token": self.token, "count": self.glyphs.count()}

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

    def _send_json(self, status: int, answer: dict[str, Any]) -> None:
        self._send(status, "application/json", json_text(answer).encode())

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
def kiosk(
    folder: Path, *, host: str = "127.0.0.1", port: int = 8000, save: Path | None = None
) -> Iterator[ThreadingHTTPServer]:
    """Yield the server of a run folder's page, ready to serve, and close it in the end.

    port: 0 takes a free one. save: folder that keeps the glyphs that people mark as read wrong, None to keep none.
    Raises StageError where there are no model files or the port is in use, UsageProblem where `host` or `save` cannot
    be taken, and TargetUnavailable without npm.
    """
    if ":" in host:
        raise UsageProblem(f"--host {host}: give an IPv4 address or a name; the page is not served by IPv6")
    models = kiosk_models(folder)
    names = frozenset({"localhost", host.lower()} | ({socket.gethostname().lower()} if host != "127.0.0.1" else set()))
    settings = {"models": models, "files": served_files(models), "policy": _policy(), "names": names}
    handler: type[_Kiosk] = type("Kiosk", (_Kiosk,), settings | {"token": secrets.token_urlsafe(24)})
    try:
        server = ThreadingHTTPServer((host, port), handler)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StageError(f"port {port} is in use; give another one with --port, or 0 for any free one") from error
        raise StageError(f"{host}:{port} cannot be served ({error.strerror or error}); check --host") from error
    with server:
        if save:
            # Only now, so that a port in use leaves no folder behind.
            handler.glyphs = open_glyph_folder(save, models.classes())
        yield server

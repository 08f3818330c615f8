"""A server of files on the loopback interface, whose pages are isolated from every other origin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

NOWHERE = "/nonexistent"


class _Files(SimpleHTTPRequestHandler):
    """Files of some folders by the first part of the path."""

    protocol_version = "HTTP/1.1"
    extensions_map = {  # noqa: RUF012 (as the base class declares it)
        ".html": "text/html",
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }
    folders: Mapping[str, Path]

    def translate_path(self, path: str) -> str:
        first, _, rest = path.lstrip("/").partition("/")
        return str(self.folders[first] / rest) if first in self.folders and ".." not in rest else NOWHERE

    def end_headers(self) -> None:
        # Isolated pages may share memory among threads, and have a clock of 5 us instead of 100
        # (https://www.w3.org/TR/hr-time-3/#dfn-coarsen-time).
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_words: object) -> None:
        """Say nothing."""


@contextmanager
def served(folders: Mapping[str, Path]) -> Iterator[str]:
    """Serve `http://127.0.0.1:PORT/NAME/...` from these folders, and yield the address up to the port."""
    handler = type("Files", (_Files,), {"folders": folders})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()

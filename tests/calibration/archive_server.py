"""A small HTTP server on loopback that serves one file as badly as a test asks."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Behaviour:
    """What is served. cuts: bytes after which each answer in turn hangs up. claim: a Content-Length that is not true.

    statuses: answered in turn before anything is served. asked: the Range header of each request.
    """

    content: bytes
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    claim: int | None = None
    statuses: list[int] = field(default_factory=list)
    asked: list[str | None] = field(default_factory=list)


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[str]:
    """Serve until the block ends; gives the URL."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_words: object) -> None:
            pass

        def do_GET(self) -> None:
            behaviour.asked.append(self.headers.get("Range"))
            if behaviour.statuses:
                self.send_error(behaviour.statuses.pop(0))
                return
            start = self._start()
            body = behaviour.content[start:]
            if start and not body:
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{len(behaviour.content)}")
            self.send_header("Content-Length", str(len(body) if behaviour.claim is None else behaviour.claim))
            self.end_headers()
            self.wfile.write(body[: behaviour.cuts.pop(0)] if behaviour.cuts else body)
            self.close_connection = True

        def _start(self) -> int:
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            return int(asked[1]) if asked and behaviour.ranges else 0

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/gzip.zip"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

"""Reads pictures with the model beside it; put here by `glyphpress deploy`.

run PICTURE...      prints each picture's character and how sure the model is of it
run --serve PORT    answers on this machine: curl --data-binary @PICTURE http://127.0.0.1:PORT
run --check         reads glyphs from standard input (.npy) and writes the model's answers, before their softmax
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import numpy as np
import read  # type: ignore[import-not-found]  # the program of `glyphpress snippet`, beside this one
from PIL import Image

LARGEST = 32 << 20
"""Bytes of a picture that is taken."""
BEST = 3


def main() -> None:
    """Do what the command line says."""
    words = sys.argv[1:]
    if words[:1] == ["--check"]:
        check()
    elif words[:1] == ["--serve"]:
        serve(" ".join(words[1:]))
    else:
        read.main()


def serve(port: str) -> None:
    """Answer requests at a port of the loopback interface until the process ends."""
    if not port.isdecimal() or not 0 < int(port) < 1 << 16:
        sys.exit(f"give --serve a port from 1 to 65535, not {port!r}")
    answers = read.opened()
    try:
        server = HTTPServer(("127.0.0.1", int(port)), handler(answers))
    except OSError as error:
        sys.exit(f"port {port} cannot be served: {error.strerror}")
    server.serve_forever()


def check() -> None:
    """Answer the glyphs of standard input, uint8 [N, 28, 28], each as a picture of its own."""
    answers = read.opened()
    pictures = map(Image.fromarray, np.load(io.BytesIO(sys.stdin.buffer.read())))
    found = io.BytesIO()
    np.save(found, np.stack([answers(read.prepared(read.glyph(picture))) for picture in pictures]))
    sys.stdout.buffer.write(found.getvalue())


def handler(answers: Callable[[Any], Any]) -> type[BaseHTTPRequestHandler]:
    """Return the class that answers requests, one at a time."""

    class Reader(BaseHTTPRequestHandler):
        timeout = 10  # seconds that a client may be silent

        def do_GET(self) -> None:
            self.answer(200, {"model": read.MODEL.name, "sha256": read.SHA256, "classes": read.CLASSES})

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length") or ""
            size = int(length) if length.isdecimal() else 0
            if not 0 < size <= LARGEST:
                self.answer(413, {"error": f"send a picture of at most {LARGEST:,} bytes"})
                return
            try:
                character = read.glyph_in(io.BytesIO(self.rfile.read(size)))
            except read.CorruptData as error:
                self.answer(400, {"error": str(error)})
                return
            likely = read.probabilities(answers(read.prepared(character)))
            best = [
                {"character": read.CLASSES[index], "probability": round(float(likely[index]), 4)}
                for index in likely.argsort()[::-1][:BEST]
            ]
            self.answer(200, {**best[0], "best": best})

        def answer(self, code: int, content: object) -> None:
            body = json.dumps(content, ensure_ascii=False).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Reader


if __name__ == "__main__":
    main()

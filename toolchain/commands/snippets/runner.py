"""Reads pictures with the model beside it; put here by `glyphpress deploy`.

run PICTURE...      prints each picture's character and how sure the model is of it
run --serve PORT    answers on this machine: curl --data-binary @PICTURE http://127.0.0.1:PORT
run --check         reads glyphs from standard input (.npy) and writes the model's answers, before their softmax
"""

from __future__ import annotations

import errno
import io
import json
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
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
    if {"-h", "--help"} & set(words):
        print(__doc__.strip())
    elif words == ["--check"]:
        check()
    elif words[:1] == ["--serve"] and len(words) == 2:
        serve(words[1])
    elif not words or words[0].startswith("--"):
        sys.exit(usage())
    else:
        read.main()


def usage() -> str:
    """Return how this is called. RUN: set by `run`, which starts this program."""
    run = os.environ.get("RUN", "run")
    return f"usage: {run} PICTURE...\n       {run} --serve PORT"


def serve(word: str) -> None:
    """Answer pictures on a port of this machine until the process ends."""
    if not (word.isascii() and word.isdecimal() and len(word) < 6 and 1 <= int(word) <= 65535):
        sys.exit(f"--serve {word}: give a port from 1 to 65535, such as 8765")
    reader = handler(read.opened())
    try:
        server = Server(("127.0.0.1", int(word)), reader)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            sys.exit(f"port {word} is taken; stop the program that has it, or give another port")
        sys.exit(f"port {word}: {error.strerror}; give another port, such as 8765")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        sys.exit(130)


class Server(ThreadingHTTPServer):
    """Gives each client a thread, so that one that is slow keeps no other waiting."""

    daemon_threads = True

    def handle_error(self, _request: Any, client_address: Any) -> None:
        """Say in one line what went wrong, such as a client that went away."""
        with suppress(OSError):
            print(f"{client_address[0]}: {sys.exc_info()[1]!r}", file=sys.stderr)


def check() -> None:
    """Answer the glyphs of standard input, uint8 [N, 28, 28], each as a picture of its own."""
    answers = read.opened()
    pictures = map(Image.fromarray, np.load(io.BytesIO(sys.stdin.buffer.read())))
    found = io.BytesIO()
    np.save(found, np.stack([answers(read.prepared(read.glyph(picture))) for picture in pictures]))
    sys.stdout.buffer.write(found.getvalue())


def ranked(likely: Any) -> list[dict[str, Any]]:
    """Return the BEST likeliest characters, the first of them first, from the probability of each."""
    return [
        {"character": read.CLASSES[index], "probability": round(float(likely[index]), 4)}
        for index in likely.argsort()[::-1][:BEST]
    ]


def handler(answers: Callable[[Any], Any]) -> type[BaseHTTPRequestHandler]:
    """Return the class that answers requests; one picture at a time is decoded and read."""
    reading = Lock()  # a runtime's session is for one thread, and a board's memory for one large picture

    class Reader(BaseHTTPRequestHandler):
        timeout = 10  # seconds that a client may be silent

        def do_GET(self) -> None:
            self.answer(200, {"model": read.MODEL.name, "sha256": read.SHA256, "classes": read.CLASSES})

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length")
            if length is None:
                self.refuse(411, "no picture came: send it whole, with its Content-Length")
            elif not (length.isascii() and length.isdecimal()):
                self.refuse(400, "Content-Length is not a number of bytes")
            elif len(length) > 20 or int(length) > LARGEST:
                self.refuse(413, f"send a picture of at most {LARGEST:,} bytes")
            else:
                self.answer_picture(self.rfile.read(int(length)), int(length))

        def answer_picture(self, content: bytes, size: int) -> None:
            if not size:
                self.refuse(400, "no picture came: the body is empty")
                return
            if len(content) < size:
                self.refuse(400, f"{len(content):,} of {size:,} bytes came")
                return
            try:
                with reading:
                    likely = read.probabilities(answers(read.prepared(read.glyph_in(io.BytesIO(content)))))
            except read.CorruptData as error:
                self.refuse(400, str(error))
                return
            best = ranked(likely)
            self.answer(200, {**best[0], "best": best})

        def refuse(self, code: int, reason: str) -> None:
            self.answer(code, {"error": reason})
            # Bytes that nobody takes would end the connection before the client has read the answer.
            self.connection.shutdown(socket.SHUT_WR)
            for _ in range(LARGEST >> 16):
                if not self.rfile.read1(1 << 16):
                    break

        def log_message(self, form: str, *words: Any) -> None:
            with suppress(OSError):  # the terminal in which it was started may be closed; it answers all the same
                super().log_message(form, *words)

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

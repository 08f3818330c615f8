"""stdout and stderr: a failed write ends no run, and control characters from strangers' files are escaped.

Lost progress is ignored; lost results are reported at the end. Without escaping, names of classes and files, and text
in metadata, could move the cursor, set the window's title, reverse the reading direction or start a command of a CI
workflow.
"""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO, cast

from targets.host.text import as_lines

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


# Random, so that no text in a file can pass for the program's own.
_OURS = f"\x1b[{int.from_bytes(os.urandom(5))};"
_COLOUR = re.compile(r"\x1b\[([0-9;]*m)")
_OUR_COLOUR = re.compile(rf"{re.escape(_OURS)}([0-9;]*m)")
_COMMAND = re.compile(
    r"^([ \t]*)::(?!(?:error|warning|notice) (?:file=[^:,]*,line=1,)?title=glyphpress gate )", re.MULTILINE
)


def ours(text: str) -> str:
    """Return text with its colour codes marked as the program's own, which alone pass to a terminal."""
    return _COLOUR.sub(lambda code: _OURS + code[1], text)


class _Coloured:
    """A stream for text whose colours are the program's own."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        return self.stream.write(ours(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def coloured(stream: TextIO) -> TextIO:
    """Return a stream for text whose colours are the program's own."""
    return cast(TextIO, _Coloured(stream))


def escaped(text: str, *, colours: bool = False) -> str:
    """Return text with control and direction characters as `\\x1b`; of colours only those that `ours` marked pass.

    A line that begins as a workflow command of GitHub Actions is no command then, other than our annotations.
    """
    parts = _OUR_COLOUR.split(text)
    parts[::2] = map(as_lines, parts[::2])
    parts[1::2] = [f"\x1b[{code}" if colours else "" for code in parts[1::2]]
    return _COMMAND.sub(r"\1:\\:", "".join(parts))


class _Escaping(io.TextIOWrapper):
    """A text stream that writes what `escaped` makes of it."""

    def write(self, text: str, /) -> int:
        super().write(escaped(text, colours=self.isatty()))
        return len(text)


class Lossy(io.FileIO):
    """A file descriptor whose writes never fail; `lost` is why some of the data was dropped."""

    lost: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        """Write the bytes or drop them; after a first loss nothing more is written, so that there is no gap."""
        if self.lost is None:
            try:
                return super().write(data)
            except OSError as error:
                self.lost = error
        return memoryview(data).nbytes

    def text(self, encoding: str = "utf-8", *, by_lines: bool = True, raw: bool = False) -> TextIO:
        """Return the text stream; characters that its encoding lacks are escapes. raw: control characters pass."""
        kind = io.TextIOWrapper if raw else _Escaping
        return kind(io.BufferedWriter(self), encoding, "backslashreplace", line_buffering=by_lines)


@contextmanager
def lossy_streams() -> Iterator[Lossy | None]:
    """Make sys.stdout and sys.stderr lossy, open or closed; yields stdout's descriptor, None if a test captures it.

    The next file that is opened would get a closed descriptor's number, and what C++ code prints would go into it.
    """
    before = sys.stdout, sys.stderr
    if sys.stdout is not sys.__stdout__:
        yield None
        return
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    encodings = [getattr(stream, "encoding", None) or "utf-8" for stream in before]
    stdout, stderr = Lossy(1, "w", closefd=False), Lossy(2, "w", closefd=False)
    sys.stdout, sys.stderr = stdout.text(encodings[0], by_lines=stdout.isatty()), stderr.text(encodings[1])
    try:
        yield stdout
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def undelivered(stdout: Lossy | None) -> OSError | None:
    """Return why results were lost, or None; a reader that has closed the pipe (`| head`) is no loss."""
    sys.stdout.flush()
    lost = stdout.lost if stdout else None
    return None if lost is None or lost.errno == errno.EPIPE else lost

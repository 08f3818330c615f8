"""Text from outside: escapes for names, paths as arguments, strict JSON, and result files by their schema.

Control characters in a file name could break a line, move the cursor, set the window's title, or make a name look like
another one by changing its reading direction.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from math import isinf
from pathlib import Path, PurePath
from typing import Any, NoReturn

# Control characters, line separators, direction marks, surrogates (of a file name that is not UTF-8), noncharacters.
_ACTIVE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ud800-\udfff\ufffe\uffff]")
_LAYOUT = "\t\n"


def one_line(text: str) -> str:
    """Return text on one line: line breaks as `\\n`, control characters as `\\x1b`, direction marks as `\\u202e`."""
    return text if text.isascii() and text.isprintable() else _ACTIVE.sub(lambda mark: _escape(mark[0]), text)


def as_lines(text: str) -> str:
    """Return text as `one_line` does, but keep its line breaks and tabs."""
    return _ACTIVE.sub(lambda mark: mark[0] if mark[0] in _LAYOUT else _escape(mark[0]), text)


def visible(text: str) -> str:
    """Return text with every run of white space as one space, and the rest as `one_line` shows it."""
    return one_line(re.sub(r"\s+", " ", text))


def argument(path: str | PurePath) -> str:
    """Return a path as a command-line argument: quoted, and `./-x.onnx` where it would be read as an option."""
    text = str(path)
    return shell_word(f"./{text}" if text.startswith("-") else text)


def shell_word(text: str) -> str:
    """Return a word as a shell takes it: quoted, with what is not to be seen on a terminal as escapes in `$'...'`."""
    if not _ACTIVE.search(text):
        return shlex.quote(text)
    plain = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{_ACTIVE.sub(lambda mark: _shell_escape(mark[0]), plain)}'"


def shell_command(words: Iterable[str]) -> str:
    """Return words as a command that can be pasted into a shell."""
    return " ".join(map(shell_word, words))


def _shell_escape(mark: str) -> str:
    # Bytes of a file name that are not UTF-8, and control characters, are bytes; others have four digits.
    code = ord(mark)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return {"\n": "\\n", "\t": "\\t"}.get(mark, f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}")


def json_text(value: Any, indent: int | None = None) -> str:
    """Return a value as JSON that a terminal can show; raises ValueError where a number is not finite."""
    return as_lines(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent))


def json_value(text: str | bytes) -> Any:
    """Return the value of JSON text; raises ValueError for invalid JSON and for numbers that are not finite."""
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise ValueError("it is not text") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"invalid JSON in line {error.lineno}, column {error.colno}") from error


def as_written(value: object) -> str:
    """Return a value of a TOML or JSON file as it stands there, such as `true` or `"fast"`; a long one is cut off."""
    is_number = isinstance(value, float)  # JSON has other words for nan and inf
    text = repr(value) if is_number else json.dumps(value, ensure_ascii=False, default=str, skipkeys=True)
    return text if len(text) <= _QUOTED else f"{text[:_QUOTED]}…"


_QUOTED = 40
"""Most characters of a value in a message."""


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is not valid JSON")


def _finite(digits: str) -> float:
    if isinf(value := float(digits)):
        raise ValueError(f"{digits} is too large a number")
    return value


def _escape(mark: str) -> str:
    # For characters that JSON allows unescaped, the escape must be one of JSON's.
    return ascii(mark)[1:-1] if mark < "\x7f" else f"\\u{ord(mark):04x}"


_HEAD = 4096
"""Bytes that are read: the schema is at the start of each result file (with 4 bytes per letter in an `.npz`)."""
_SCHEMA = re.compile(rb'^\s*\{\s*"schema": ?"(glyphpress/([a-z-]+)/\d+)"')
_DESCRIPTIONS = {
    "artifact": "is the sidecar of a model; give {model}",
    "report": "is the report of a press; `glyphpress report {path}` shows it",
    "saved-profile": "is a saved profile; `glyphpress profile compare` compares it with another one",
    "timings": "holds stored timings; `glyphpress report {path}` shows them, and compares those of several files",
    "evaluation": "is a saved evaluation; `glyphpress compare` takes it, and `gate` as --baseline or --candidate",
    "baseline": "is a stored baseline; `glyphpress gate --baseline {path}` takes it",
    "evidence": "is stored evidence; `glyphpress gate --from {path}` judges it",
    "verdict": "is a stored verdict; give the model that it judges",
    "ranges": "holds ranges of activations; `glyphpress ranges {path}` shows them, `quantize --ranges` takes them",
}


def result_kind(path: Path) -> str:
    """Return the kind of result in a file, by the name of its schema; an empty string for any other file."""
    schema = _SCHEMA.match(_start(path))
    return schema[2].decode() if schema else ""


def instead_of(path: Path, *expected: str) -> str:
    """Return what a result file is and which command takes it, or that a later glyphpress wrote it.

    expected: the schemas that the reader knows, such as `glyphpress/report/1`. An empty string for files of these and
    of earlier versions of them, and for files that are no results.
    """
    schema = _SCHEMA.match(_start(path))
    if not schema:
        return ""
    kind = schema[2].decode()
    if known := next((each for each in expected if each.split("/")[1] == kind), ""):
        return made_later(_values(path), known) if _version(schema[1].decode(), known) else ""
    description = _DESCRIPTIONS.get(
        kind, f"is what `glyphpress {kind} --json` printed; give the file that it describes"
    )
    return description.format(
        path=argument(path), model=path.with_suffix("") if path.suffix == ".json" else "the model"
    )


def made_later(values: object, known: str) -> str:
    """Return that a later glyphpress wrote the values of a result, and what to do; an empty string where none did.

    known: the schema that this version reads, such as `glyphpress/report/1`.
    """
    facts: dict[str, Any] = values if isinstance(values, dict) else {}
    theirs = _version(facts.get("schema"), known)
    if not theirs:
        return ""
    tools = facts.get("tools")
    maker = tools.get("glyphpress") if isinstance(tools, dict) else facts.get("tool")
    named = isinstance(maker, str) and re.fullmatch(r"\d[\w.+-]{0,40}", maker)
    by = f"glyphpress {maker}" if named else "a later glyphpress"
    ours = known.rpartition("/")[2]
    return f"was made by {by} (format {theirs}); this is {_own()}, which reads up to {ours}: update glyphpress"


def _version(schema: object, known: str) -> int:
    """Return the version of a schema of the same kind as `known` if it is later, else 0."""
    kind, _, ours = known.rpartition("/")
    theirs = re.fullmatch(rf"{re.escape(kind)}/(\d{{1,9}})", schema) if isinstance(schema, str) else None
    return int(theirs[1]) if theirs and int(theirs[1]) > int(ours) else 0


def _own() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"version {version('glyphpress')}"
    except PackageNotFoundError:  # on a board
        return "an earlier one"


def _start(path: Path, size: int = _HEAD) -> bytes:
    """Return the first bytes of a file, of the JSON in it where it is an `.npz`; none where that is unreadable."""
    import zipfile
    import zlib

    try:
        with path.open("rb") as stream:
            head = stream.read(size)
        if head.startswith(b"PK"):
            with zipfile.ZipFile(path) as packed, packed.open("meta.npy") as stream:
                # After numpy's header comes text with 4 bytes per letter.
                _, _, head = stream.read(size).replace(b"\0", b"").partition(b"\n")
    except (OSError, KeyError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error, EOFError, ValueError):
        return b""
    return head


_LARGEST = 64 * 1024 * 1024
"""Bytes of a result that are searched for the version that made it."""


def _values(path: Path) -> object:
    """Return the JSON of a result file, only its schema where the rest cannot be read."""
    text = _start(path, _LARGEST)
    try:
        return json_value(text)
    except (ValueError, RecursionError):
        schema = _SCHEMA.match(text)
        return {"schema": schema[1].decode()} if schema else None

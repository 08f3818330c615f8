"""Characters of strangers' names and texts that a terminal, XML or a reader would obey, and their escapes.

They could break a line, move the cursor, set a window's title, or show a name as another by turning its direction.
"""

from __future__ import annotations

import json
import re
import shlex
from math import isinf
from pathlib import PurePath
from typing import Any, NoReturn

# Control characters, separators of lines, marks that turn the reading direction, halves of pairs (of a file name that
# is no UTF-8), and what is no character at all.
_ACTIVE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ud800-\udfff\ufffe\uffff]")
_KEPT = "\t\n"


def one_line(text: str) -> str:
    """Return text on one line: line breaks as `\\n`, control characters as `\\x1b`, direction marks as `\\u202e`."""
    return text if text.isascii() and text.isprintable() else _ACTIVE.sub(lambda mark: _escape(mark[0]), text)


def as_lines(text: str) -> str:
    """Return text as `one_line` does, but for its line breaks and tabs, which stay."""
    return _ACTIVE.sub(lambda mark: mark[0] if mark[0] in _KEPT else _escape(mark[0]), text)


def argument(path: str | PurePath) -> str:
    """Return a path as a command line takes it: quoted, and `./-x.onnx` where it would be taken for an option."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def json_text(value: Any, indent: int | None = None) -> str:
    """Return a value as JSON that a terminal can show; raises ValueError where a number is not finite."""
    return as_lines(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent))


def json_value(text: str | bytes) -> Any:
    """Return what JSON text holds; raises ValueError for text that is none, and for numbers that are not finite."""
    return json.loads(text, parse_constant=_refuse, parse_float=_finite)


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


def _finite(digits: str) -> float:
    if isinf(value := float(digits)):
        raise ValueError(f"{digits} is too large a number")
    return value


def _escape(mark: str) -> str:
    # Where JSON lets a character stand as it is, the escape is one of JSON's.
    return ascii(mark)[1:-1] if mark < "\x7f" else f"\\u{ord(mark):04x}"

"""Text from outside: escapes for names that a terminal would obey, paths as arguments, and strict JSON.

Control characters in a file name could break a line, move the cursor, set the window's title, or make a name look like
another one by changing its reading direction.
"""

from __future__ import annotations

import json
import re
import shlex
from math import isinf
from pathlib import PurePath
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
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


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


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is not valid JSON")


def _finite(digits: str) -> float:
    if isinf(value := float(digits)):
        raise ValueError(f"{digits} is too large a number")
    return value


def _escape(mark: str) -> str:
    # For characters that JSON allows unescaped, the escape must be one of JSON's.
    return ascii(mark)[1:-1] if mark < "\x7f" else f"\\u{ord(mark):04x}"

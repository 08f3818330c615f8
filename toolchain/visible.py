"""Names and texts out of strangers' files, written so that they are seen and never obeyed.

Class, file and layer names and metadata could break a line, move the cursor, set a window's title, turn the reading
direction or start a command of a CI workflow.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_BREAKS = frozenset("\u2028\u2029")


def visible(words: str) -> str:
    """Return words with every run of white space as one space, and the rest as `one_line` shows it."""
    return one_line(re.sub(r"\s+", " ", words))


def one_line(text: str) -> str:
    """Return text on one line: line breaks as `\\n`, control characters as `\\x1b`; spaces stay."""
    return text if text.isascii() and text.isprintable() else "".join(map(_seen, text))


def shown(words: str, style: str = "") -> Text:
    """Return a line, or what stands in one cell of a table, for a console; it is no markup."""
    from rich.text import Text

    return Text(one_line(words), style)


def escape(mark: str) -> str:
    """Return the escape of a character, which a string in JSON may hold where JSON lets the character stand."""
    return f"\\u{ord(mark):04x}" if "\x7f" <= mark <= "\x9f" else ascii(mark)[1:-1]


def _seen(mark: str) -> str:
    # Control characters, halves of pairs (of a file name that is no UTF-8), unassigned: XML and terminals refuse them.
    # Direction overrides (of format characters, Cf, those that turn what follows) show a name as another.
    broken = unicodedata.category(mark) in {"Cc", "Cs", "Cn"} or mark in DIRECTIONS or mark in _BREAKS
    return escape(mark) if broken else mark

"""Names and texts out of strangers' files, written so that they are seen and never obeyed."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING

from targets.escapes import one_line

if TYPE_CHECKING:
    from rich.text import Text

# What no file can guess, so that no text in one can pass for the program's own.
_OURS = f"\x1b[{secrets.randbelow(10**12)};"
_COLOUR = re.compile(r"\x1b\[([0-9;]*m)")
OUR_COLOUR = re.compile(rf"{re.escape(_OURS)}([0-9;]*m)")


def ours(text: str) -> str:
    """Return text with its colour codes marked as the program's own, which alone pass to a terminal."""
    return _COLOUR.sub(lambda code: _OURS + code[1], text)


def visible(words: str) -> str:
    """Return words with every run of white space as one space, and the rest as `one_line` shows it."""
    return one_line(re.sub(r"\s+", " ", words))


def shown(words: str, style: str = "") -> Text:
    """Return a line, or what stands in one cell of a table, for a console; it is no markup."""
    from rich.text import Text

    return Text(one_line(words), style)

"""Names and texts out of strangers' files, written so that they are seen and never obeyed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from targets.host.text import one_line

if TYPE_CHECKING:
    from rich.text import Text


def visible(words: str) -> str:
    """Return words with every run of white space as one space, and the rest as `one_line` shows it."""
    return one_line(re.sub(r"\s+", " ", words))


def shown(words: str, style: str = "") -> Text:
    """Return a line, or what stands in one cell of a table, for a console; it is no markup."""
    from rich.text import Text

    return Text(one_line(words), style)

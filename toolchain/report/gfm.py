"""GitHub-flavoured Markdown that no class name can break: `|`, a backtick and `<` are handwritten characters too.

https://github.github.com/gfm: a pipe is escaped in a table even within a code span. `@`, `#` and `$` have no escape of
their own on GitHub (mentions, issues, formulas); within an element of their own they stay characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from targets.host.text import visible

_MARKS = {mark: f"\\{mark}" for mark in "\\`*_[]~|!"}
_ELEMENTS = {mark: f"<span>{mark}</span>" for mark in "@#$"}
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_HTML = str.maketrans(_ENTITIES)
_TEXT = str.maketrans(_MARKS | _ELEMENTS | _ENTITIES)


def text(plain: str) -> str:
    """Return plain text escaped, on one line, so that Markdown shows it as it is, also in a table."""
    return visible(plain).translate(_TEXT)


def code(plain: str) -> str:
    """Return plain text as a code span; an empty one becomes a space."""
    plain = visible(plain) or " "
    if "\\" in plain and "|" in plain:
        # A code span in a table cannot hold both.
        return text(plain)
    fence = "`" * (max(map(len, re.findall("`+", plain)), default=0) + 1)
    # Markdown removes one space on each side again; with it, a backtick may be at the edge.
    inner = f" {plain} " if plain.startswith("`") or plain.endswith("`") else plain
    return f"{fence}{inner}{fence}"


def table(names: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Return a table of cells that are Markdown already. right: indices of the columns to align right."""
    rule = ["---:" if column in right else "---" for column in range(len(names))]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in (names, rule, *rows))


def _cell(markdown: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\|", markdown)


def details(summary: str, body: str) -> str:
    """Return what opens when it is asked for. summary: plain words; body: Markdown already."""
    return f"<details>\n<summary>{visible(summary).translate(_HTML)}</summary>\n\n{body}\n\n</details>"

"""GitHub-flavoured Markdown that no class name can break: `|`, a backtick or `<` are characters of handwriting too.

https://github.github.com/gfm: a pipe is escaped in a table even within a code span. `@`, `#` and `$` have no escape of
their own on GitHub (mentions, issues, formulas); within an element of their own they stay characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from toolchain.core.visible import visible

_MARKS = {mark: f"\\{mark}" for mark in "\\`*_[]~|!"}
_ELEMENTS = {mark: f"<span>{mark}</span>" for mark in "@#$"}
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_HTML = str.maketrans(_ENTITIES)
_TEXT = str.maketrans(_MARKS | _ELEMENTS | _ENTITIES)


def text(words: str) -> str:
    """Return words as Markdown shows them as they are, on one line, in a table too."""
    return visible(words).translate(_TEXT)


def code(words: str) -> str:
    """Return words as a code span; a space stands for what is empty."""
    plain = visible(words) or " "
    if "\\" in plain and "|" in plain:
        # The one thing that a span in a table cannot say.
        return text(plain)
    fence = "`" * (max(map(len, re.findall("`+", plain)), default=0) + 1)
    # One space on each side is taken away again, and lets a backtick stand at the edge.
    inner = f" {plain} " if plain.startswith("`") or plain.endswith("`") else plain
    return f"{fence}{inner}{fence}"


def table(names: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Return a table of cells that are Markdown already. right: columns of figures."""
    rule = ["---:" if column in right else "---" for column in range(len(names))]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in (names, rule, *rows))


def _cell(markdown: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\|", markdown)


def details(summary: str, body: str) -> str:
    """Return what opens when it is asked for. summary: plain words; body: Markdown already."""
    return f"<details>\n<summary>{visible(summary).translate(_HTML)}</summary>\n\n{body}\n\n</details>"

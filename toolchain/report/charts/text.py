"""Texts of pictures: how wide they are, and what is left of those that have no room."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from targets.host.text import visible

_NARROW, _WIDE = frozenset("fijlrtI.,:;'|!()[]/ -"), frozenset("mwMWOQGDNHU@%&—…")


def text_width(text: str, size: float = 12) -> float:
    """Return an upper estimate of a text's width in a common sans-serif font, as DejaVu Sans, which is a wide one."""
    return size * sum(map(_em, visible(text)))


def _em(letter: str) -> float:
    if letter in _NARROW:
        return 0.42
    if unicodedata.combining(letter):
        return 0.0
    wide = letter in _WIDE or unicodedata.east_asian_width(letter) in "WF"
    return 1.0 if wide else 0.72 if letter.isupper() else 0.64


def shortened(text: str, width: float, size: float = 12, *, head: float = 0.4) -> str:
    """Return a text that fits into a width: whole, or with an ellipsis; head: the share of what is left before it."""
    shown = visible(text)
    if text_width(shown, size) <= width:
        return shown
    for kept in range(len(shown) - 1, 0, -1):
        start = round(kept * head)
        short = f"{shown[:start]}…{shown[len(shown) - kept + start :]}"
        if text_width(short, size) <= width:
            return short
    return "…"


def short_names(names: Sequence[str]) -> list[str]:
    """Return names of files without their common start, where that is long: `…int8.onnx` for `letters.int8.onnx`."""
    first, last = min(names, default=""), max(names, default="")
    same = next((k for k, letters in enumerate(zip(first, last, strict=False)) if len({*letters}) > 1), 0)
    cut = max(first.rfind(mark, 0, same) for mark in ".-_/ ") + 1
    return [f"…{name[cut:]}" for name in names] if cut > 4 else list(names)


def fitted(names: Sequence[str], width: float, size: float = 12) -> list[str]:
    """Return names that fit into a width, shortened where the most of them still differ."""
    ways = [[shortened(name, width, size, head=head) for name in names] for head in (0.4, 0.0, 1.0, 0.7)]
    return max(ways, key=lambda way: len(set(way)))


def wrapped(text: str, width: float, size: float = 12) -> list[str]:
    """Return the lines of a text, each within a width unless it is a single word."""
    lines: list[str] = []
    for word in visible(text).split(" "):
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(joined, size) <= width:
            lines[-1] = joined
        else:
            lines.append(word)
    return lines

"""Drawing: the one mechanism behind every picture (SVG): scales, ticks, axes, text, legend and escaping.

A unit is a pixel where the picture is as wide on the page as it was drawn; WIDTH suits screens of 390 pixels. Colours
are CSS variables of the page, with a fallback; those of curves are of M. Okabe and K. Ito's
palette, which colour-blind people can tell apart (https://jfly.uni-koeln.de/color). Equal calls give equal bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from math import ceil, floor, isfinite, log10
from typing import Literal

from targets.host.text import visible
from toolchain.report.charts.text import shortened, text_width, wrapped

WIDTH = 360
INK, QUIET, PAPER = "var(--ink, #1a1a1a)", "var(--quiet, #595959)", "var(--paper, #ffffff)"
LINE = "var(--line, #d0d0d0)"
BASE, OTHER = "var(--base, #595959)", "var(--other, #0072B2)"
PASS, FAIL, UNSURE = "var(--pass, #00735c)", "var(--fail, #b34700)", "var(--unsure, #7a5c00)"
BLUE, ORANGE = "var(--blue, #0072B2)", "var(--orange, #D55E00)"
SERIES = (
    (BLUE, ""),
    (ORANGE, "6 3"),
    ("var(--green, #009E73)", "2 2"),
    ("var(--purple, #CC79A7)", "8 2 2 2"),
    (INK, "4 1"),
    (BLUE, "3 3"),
    (ORANGE, ""),
    ("var(--green, #009E73)", "10 3"),
)
"""Colour and dashes of the first curves; no two have both in common."""
Anchor = Literal["start", "middle", "end"]
_VARIABLE = re.compile(r'="var\(--[a-z]+, (#[0-9A-Fa-f]{6})\)"')


@dataclass(frozen=True)
class Area:
    """A rectangle, in units of the drawing; y grows downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Area) -> bool:
        """Return whether the two have a point in common; a shared border does not count."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def within(self, other: Area) -> bool:
        """Return whether no part of it lies outside the other."""
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.top >= other.top
            and self.bottom <= other.bottom
        )


_TOLD_APART = "monospace"


def text_area(x: float, y: float, text: str, size: float = 12, anchor: Anchor = "start") -> Area:
    """Return the area of a text whose baseline is at y."""
    width = text_width(text, size)
    left = x - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
    return Area(left, y - 0.8 * size, left + width, y + 0.25 * size)


@dataclass(frozen=True)
class Scale:
    """Maps values from `low` to `high` to units from `start` to `end`; log: by their logarithm.

    Values outside are mapped to the nearer end.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    @classmethod
    def around(
        cls, values: Sequence[float], start: float, end: float, *, log: bool = False, room: float = 0.06
    ) -> Scale:
        """Return a scale with all values and some room (a share of the span) beyond both ends.

        Values that are not finite, or not positive on a log scale, are left out. Without any, it is from 0 (log: 1)
        to 1 (log: 10); around a single value it is from a tenth below to a tenth above.
        """
        usable = [value for value in values if isfinite(value) and (value > 0 or not log)]
        if not usable:
            return cls(1.0, 10.0, start, end, True) if log else cls(0.0, 1.0, start, end)
        low, high = min(usable), max(usable)
        if log:
            span = max((high / low) ** room, 1.1 if high <= low * 1.0001 else 1.0)
            return cls(low / span, high * span, start, end, True)
        span = (high - low) * room if high > low else abs(high) * 0.1 or 1.0
        return cls(low - span, high + span, start, end)

    def __call__(self, value: float) -> float:
        """Return the unit of a value."""
        value = min(max(value, self.low), self.high)
        if self.log:
            share = log10(value / self.low) / log10(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int = 5) -> list[float]:
        """Return at most `most` nice values on it (two where it has room for no fewer), in ascending order."""
        if not self.log:
            return nice_values(self.low, self.high, most)
        powers = range(floor(log10(self.low)), ceil(log10(self.high)) + 1)
        for digits in ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
            values = [digit * 10.0**power for power in powers for digit in digits]
            inside = [value for value in values if self.low <= value <= self.high]
            if len(inside) <= most:
                break
        return inside[:: ceil(len(inside) / most)] if len(inside) > 2 else nice_values(self.low, self.high, most)


def nice_values(low: float, high: float, most: int = 5) -> list[float]:
    """Return at most `most` multiples of 1, 2 or 5 times a power of ten from `low` to `high`, as many as fit."""
    if not high > low:
        return [low]
    power = floor(log10((high - low) / most)) - 1
    for step in (digit * 10.0**k for k in range(power, power + 4) for digit in (1, 2, 5)):
        first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
        if last - first + 1 <= most:
            return [round(number * step, 12 - power) for number in range(first, last + 1)]
    return []


class Drawing:
    """A picture in the making; every method adds to it and escapes the texts that it is given."""

    def __init__(self, width: float = WIDTH) -> None:
        """Start an empty picture."""
        self.width = width
        self._parts: list[str] = []

    def add(self, tag: str, **attributes: str | float | None) -> None:
        """Add an element; `stroke_width` is written `stroke-width`, and what is None or empty is left out."""
        self._parts.append(f"<{tag}{_attributes(attributes)}/>")

    def path(self, data: str, colour: str = QUIET, *, width: float = 1, dashes: str = "", fill: str = "none") -> None:
        """Add a path: its outline in `colour`, `width` units wide."""
        # A width of 1 is SVG's own.
        thick = width if width != 1 else ""
        self.add("path", d=data, fill=fill, stroke=colour, stroke_width=thick, stroke_dasharray=dashes)

    def line(
        self,
        start: tuple[float, float],
        end: tuple[float, float],
        colour: str = QUIET,
        *,
        width: float = 1,
        dashes: str = "",
    ) -> None:
        """Add a straight line."""
        (x, y), (x2, y2) = [(number(x), number(y)) for x, y in (start, end)]
        track = f"V{y2}" if x == x2 else f"H{x2}" if y == y2 else f"L{x2} {y2}"
        self.path(f"M{x} {y}{track}", colour, width=width, dashes=dashes)

    def curve(self, points: Sequence[tuple[float, float]], colour: str, *, width: float = 2, dashes: str = "") -> None:
        """Add a line through points."""
        track = " ".join(f"{number(x)},{number(y)}" for x, y in points)
        self.add("polyline", points=track, fill="none", stroke=colour, stroke_width=width, stroke_dasharray=dashes)

    def error_bar(self, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
        """Add an upright or level line with a short stroke across each end."""
        (x, y), (x2, y2) = [(number(x), number(y)) for x, y in (start, end)]
        level = y == y2 and x != x2
        stroke = "m0-3v6m0-3" if level else "m-3 0h6m-3 0"
        # The second stroke ends with a move that draws nothing.
        self.path(f"M{x} {y}{stroke}{f'H{x2}' if level else f'V{y2}'}{stroke}", colour)

    def rect(self, area: Area, fill: str, **attributes: str | float) -> None:
        """Add a rectangle."""
        size = {"width": area.right - area.left, "height": area.bottom - area.top}
        self.add("rect", x=area.left, y=area.top, **size, fill=fill, **attributes)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        colour: str = QUIET,
        *,
        size: float = 12,
        anchor: Anchor = "start",
        bold: bool = False,
        turned: bool = False,
        alike: bool = False,
    ) -> Area:
        """Add a text with its baseline at y and return its area.

        turned: it runs upwards from there. alike: characters that look alike, as I and l, must be told apart.
        """
        shown = visible(text)
        place = {"x": x, "y": y} if not turned else {"transform": f"translate({number(x)} {number(y)})rotate(-90)"}
        attributes = _attributes(
            place
            | {"fill": colour if colour != QUIET else None, "font-size": size if size != 12 else None}
            | {"text-anchor": anchor if anchor != "start" else None, "font-weight": "bold" if bold else None}
            | {"font-family": _TOLD_APART if alike else None}
        )
        self._parts.append(f"<text{attributes}>{escape(shown)}</text>")
        flat = text_area(0, 0, shown, size, anchor)
        return (
            Area(x + flat.top, y - flat.right, x + flat.bottom, y - flat.left)
            if turned
            else Area(x + flat.left, y + flat.top, x + flat.right, y + flat.bottom)
        )

    def paragraph(self, x: float, y: float, text: str, colour: str = QUIET, *, size: float = 12) -> float:
        """Add a text that is broken into lines up to the right border; returns the baseline of the line after it."""
        for line in wrapped(text, self.width - x - 2, size):
            self.text(x, y, line, colour, size=size)
            y += size + 4
        return y

    @contextmanager
    def group(self, note: str = "", **attributes: str | float) -> Iterator[None]:
        """Put what is added inside into a group; note: what a pointer on it shows."""
        self._parts.append(f"<g{_attributes(attributes)}>")
        if note:
            self._parts.append(f"<title>{escape(visible(note))}</title>")
        yield
        self._parts.append("</g>")

    def x_axis(
        self,
        scale: Scale,
        y: float,
        text: Callable[[float], str],
        *,
        title: str = "",
        top: float | None = None,
        most: int = 5,
    ) -> None:
        """Draw an axis at y with ticks, their texts below it, and a title below these (34 units in all).

        top: where the thin lines through the ticks end. A text that would touch the one before it is left out.
        """
        taken, values = float("-inf"), scale.ticks(most)
        if top is not None:
            self.path("".join(f"M{number(scale(value))} {number(top)}V{number(y)}" for value in values), LINE)
        for value in values:
            words = text(value)
            half = text_width(words) / 2
            middle = min(max(scale(value), half), self.width - half)
            if middle - half >= taken + 4:
                taken = middle + half
                self.text(middle, y + 15, words, anchor="middle")
        self.path("".join(f"M{number(scale(value))} {number(y)}v3" for value in values))
        self.line((scale.start, y), (scale.end, y))
        if title:
            self.text(scale.end, y + 31, title, anchor="end")

    def y_axis(
        self,
        scale: Scale,
        x: float,
        text: Callable[[float], str],
        *,
        title: str = "",
        right: float | None = None,
        most: int = 5,
    ) -> None:
        """Draw an axis at x with ticks, their texts to the left of it, and a title above it.

        right: where the thin lines through the ticks end.
        """
        values = scale.ticks(most)
        if right is not None:
            self.path("".join(f"M{number(x)} {number(scale(value))}H{number(right)}" for value in values), LINE)
        for value in values:
            self.text(x - 5, scale(value) + 4, text(value), anchor="end")
        self.path("".join(f"M{number(x)} {number(scale(value))}h-3" for value in values))
        self.line((x, scale.start), (x, scale.end))
        if title:
            self.text(0, min(scale.start, scale.end) - 9, title)

    def legend(self, entries: Sequence[tuple[Callable[[float, float], None], str]], x: float, y: float) -> float:
        """Draw the entries in as many lines as they need; returns the baseline of the line after them.

        entries: what draws a mark around the middle (x, y) of 16 units, and its text.
        """
        left = x
        for mark, words in entries:
            shown = shortened(words, self.width - x - 22)
            wide = 22 + text_width(shown)
            if left > x and left + wide > self.width:
                left, y = x, y + 16
            mark(left + 8, y - 4)
            self.text(left + 20, y, shown)
            left += wide + 10
        return y + 16

    def svg(self, height: float, title: str, description: str, *, standalone: bool = False) -> str:
        """Return the picture with a title and a description that says what it shows.

        standalone: as a file of its own, with a size in pixels, a ground, and the fallbacks in place of the variables,
        which other viewers than browsers do not know. Otherwise it fills its place on the page.
        """
        digest = hashlib.sha256("\0".join((title, description, *self._parts)).encode("utf-8", "replace")).hexdigest()
        names = [f"c{digest[:8]}{part}" for part in "td"]
        size = {"width": self.width, "height": height} if standalone else {"class": "chart"}
        box = f"0 0 {number(self.width)} {number(height)}"
        head = _attributes(
            {"xmlns": "http://www.w3.org/2000/svg", "viewBox": box}
            | size
            | {"role": "img", "aria-labelledby": " ".join(names)}
            | {"font-family": "system-ui,sans-serif", "font-size": "12", "fill": QUIET}
        )
        texts = zip(("title", "desc"), names, (title, description), strict=True)
        labels = [f'<{tag} id="{name}">{escape(visible(text))}</{tag}>' for tag, name, text in texts]
        ground = [f'<rect width="100%" height="100%" fill="{PAPER}"/>'] if standalone else []
        drawn = "\n".join([f"<svg{head}>", *labels, *ground, *self._parts, "</svg>"])
        return _VARIABLE.sub(r'="\1"', drawn) + "\n" if standalone else drawn


def number(value: float) -> str:
    """Return a length with one decimal, as short as it can be written: `12`, `12.5`; never `-0`."""
    return f"{round(value, 1) + 0.0:.1f}".removesuffix(".0")


def _attributes(values: Mapping[str, str | float | None]) -> str:
    return "".join(
        f' {name.replace("_", "-")}="{escape(visible(value)) if isinstance(value, str) else number(value)}"'
        for name, value in values.items()
        if value not in (None, "")
    )

"""Draw the pictures of the explanation pages: `python -m bench.pictures`.

The bounds in them are those by which the gate decides.
"""

from __future__ import annotations

import math
from pathlib import Path

from toolchain.stats import paired_difference

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
GREY, GREEN, RED, AMBER, BLUE = "#7d8590", "#1f9d62", "#dc4a4a", "#c08415", "#3f83e0"
"""Colours that can be read on white and on a dark page."""
WIDTH = 720


def svg(height: int, title: str, *parts: str) -> str:
    """Return a picture of that height with a title for readers who do not see it."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="21">'
    )
    return "\n".join([head, f"<title>{title}</title>", *parts, "</svg>\n"])


def text(x: float, y: float, words: str, colour: str = GREY, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}">{words}</text>'


def line(  # noqa: PLR0917 (the first four are two points)
    x: float, y: float, x2: float, y2: float, colour: str = GREY, width: float = 1.5, dash: str = ""
) -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<path d="M{x:.1f} {y:.1f}L{x2:.1f} {y2:.1f}" stroke="{colour}" stroke-width="{width}"{dashed}/>'


def curve(points: list[tuple[float, float]], colour: str, width: float = 3) -> str:
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="{width}" stroke-linejoin="round"/>'


def verdicts() -> str:
    """Draw three intervals beside a margin of 0.3 pp, as the gate computes them for these counts."""

    def x(points: float) -> float:
        return 250 + (points + 0.4) * 235

    parts = [line(x(0.3), 34, x(0.3), 232, RED, 2, "6 5"), text(x(0.3), 24, "margin 0.3 pp", RED, "middle")]
    cases = (("PASS", GREEN, 24, 37, 18_800), ("INCONCLUSIVE", AMBER, 12, 8, 2_000), ("FAIL", RED, 190, 50, 18_800))
    for row, (verdict, colour, lost, gained, images) in enumerate(cases):
        y = 66 + row * 62
        low, high = (
            100 * float(bound(lost, gained, images, 0.95))
            for bound in (paired_difference.lower_bound, paired_difference.upper_bound)
        )
        drop = 100 * (lost - gained) / images
        parts += [
            text(0, y, verdict, colour),
            text(0, y + 25, f"{lost} lost, {gained} gained"),
            line(x(low), y, x(high), y, colour, 5),
            f'<circle cx="{x(drop):.1f}" cy="{y}" r="8" fill="{colour}"/>',
        ]
    parts.append(line(x(-0.35), 240, x(1.5), 240))
    for tick in (0.0, 0.5, 1.0, 1.5):
        parts += [line(x(tick), 240, x(tick), 247), text(x(tick), 270, f"{tick:g}", GREY, "middle")]
    parts.append(text(x(0.6), 300, "drop in accuracy, in percentage points", GREY, "middle"))
    return svg(310, "Three verdicts: the interval of the drop against the margin", *parts)


def images_needed() -> str:
    """Draw the upper bound of a drop of 0 against the number of images, for two discordances."""

    def x(images: float) -> float:
        return 70 + math.log(images / 500) / math.log(40) * 600

    def y(points: float) -> float:
        return 250 - points * 220

    parts = [line(70, y(0.3), 670, y(0.3), RED, 2, "6 5"), text(670, y(0.3) - 8, "margin 0.3 pp", RED, "end")]
    numbers = [round(500 * 40 ** (step / 60)) for step in range(61)]
    for discordance, colour, label, rise in ((0.01, BLUE, "1 % discordance", 10), (0.002, GREEN, "0.2 %", -34)):
        points = []
        for images in numbers:
            each = images * discordance / 2
            points.append((x(images), y(100 * float(paired_difference.upper_bound(each, each, images, 0.95)))))
        parts += [curve(points, colour), text(points[6][0] + 10, points[6][1] - rise, label, colour)]
    parts += [line(70, 250, 670, 250), line(70, 40, 70, 250)]
    parts += [text(62, y(tick) + 6, f"{tick:g}", GREY, "end") for tick in (0, 0.2, 0.4, 0.6, 0.8)]
    parts += [text(x(tick), 276, f"{tick:,}", GREY, "middle") for tick in (500, 1_000, 2_000, 5_000, 10_000, 20_000)]
    parts += [
        text(70, 24, "largest drop that fits, in percentage points"),
        text(370, 308, "images", GREY, "middle"),
    ]
    return svg(318, "The bound of a drop that is really 0, by number of images", *parts)


def rounding() -> str:
    """Draw a wave as it is, in 8 bits, and in 4."""
    parts = []
    for column, (bits, colour, label) in enumerate(((32, GREY, "float"), (8, BLUE, "8 bits"), (4, AMBER, "4 bits"))):
        left = column * 245
        levels = 2 ** (bits - 1) - 1
        points = []
        for step in range(211):
            value = math.sin(step / 210 * 2 * math.pi) * math.exp(-step / 300)
            rounded = value if bits == 32 else round(value * levels) / levels
            points.append((left + 10 + step, 120 - rounded * 90))
        parts += [line(left + 10, 120, left + 220, 120, GREY, 1), curve(points, colour)]
        parts.append(text(left + 115, 240, label, colour, "middle"))
    return svg(254, "The same values in float, 8 and 4 bits", *parts)


PICTURES = {"verdicts.svg": verdicts, "images-needed.svg": images_needed, "rounding.svg": rounding}

if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (IMAGES / name).write_text(draw(), encoding="utf-8")

"""Parts of the sentences on pages: how a file compares with its baseline."""

from __future__ import annotations

from collections.abc import Sequence

from toolchain.core.quantities import percent_text, points_text, sure_text
from toolchain.evaluation.timings import SLOWER


def size_words(shrink: float | None) -> str:
    """Return `3.8 times smaller than`, ready for what it is compared with. shrink: how many times smaller it is."""
    if shrink is None or 1 / SLOWER <= shrink <= SLOWER:
        return "as large as"
    return f"{shrink:.1f} times smaller than" if shrink > 1 else f"{1 / shrink:.2f} times as large as"


def time_words(ratio: float, interval: tuple[float, float] | None) -> str:
    """Return `runs 3.3 times as fast`; a ratio whose interval holds 1 is `about as fast`."""
    low, high = interval or (ratio, ratio)
    if high < 1 / SLOWER:
        return f"runs {1 / ratio:.1f} times as fast"
    return f"takes {ratio:.2f} times as long" if low > SLOWER else "is about as fast"


def reading_words(accuracy: float, base: float, bound: float, images: int, *, confidence: float = 0.95) -> str:
    """Return what a file reads, and how much it loses at most. bound: of the drop, with this confidence."""
    at_most = f"it loses at most {points_text(bound)} pp" if bound > 0 else "it does not read worse"
    return (
        f"It reads {percent_text(accuracy)} of {images:,} test images correctly (float {percent_text(base)}); "
        f"with {sure_text(confidence)} confidence {at_most}."
    )


def joined(parts: Sequence[str]) -> str:
    """Return parts of a sentence as `a, b and c`."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def sentences(parts: Sequence[str]) -> str:
    """Return the sentences that are there as one text."""
    return " ".join(filter(None, parts))
